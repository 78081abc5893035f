"""Progress bars of a run while it trains."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from rich import progress

from population.base.types import Checkpoint
from population.controller import PopulationController
from population.report.hyperparameters import one_line

_REFRESH_S = 0.25
_MOST_BARS = 16
_WIDEST_NOTE = 48  # More would push the bar itself off a narrow terminal.


@contextlib.contextmanager
def bars(controller: PopulationController) -> Iterator[None]:
    """Show each slot's steps, value and hyperparameters until the block ends.

    Beyond 16 slots there is one bar for all.
    """
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("steps"),
        progress.TextColumn("{task.fields[note]}"),
        progress.TimeElapsedColumn(),
    )
    stopped = threading.Event()
    with progress.Progress(*columns, auto_refresh=False) as shown:
        show = _one_each if len(controller.workers) <= _MOST_BARS else _one_for_all
        update = show(shown, controller)
        thread = threading.Thread(
            target=_keep_on, args=(update, stopped), name="population-bars", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            update()


def _keep_on(update: Any, stopped: threading.Event) -> None:
    while not stopped.wait(_REFRESH_S):
        update()


def _one_each(shown: progress.Progress, controller: PopulationController) -> Any:
    total = controller.stop.steps
    tasks = [
        shown.add_task(f"worker {worker_id}", total=total, note="")
        for worker_id in range(len(controller.workers))
    ]

    def update() -> None:
        for worker_id, task in enumerate(tasks):
            newest = controller.newest(worker_id)
            shown.update(task, completed=newest.step, note=_note(newest))
        shown.refresh()

    return update


def _one_for_all(shown: progress.Progress, controller: PopulationController) -> Any:
    size = len(controller.workers)
    total = size * controller.stop.steps if controller.stop.steps else None
    task = shown.add_task(f"{size} workers", total=total, note="")

    def update() -> None:
        best = controller.best()
        steps = sum(worker.step for worker in controller.workers)
        note = "" if best is None else f"best {best.value:.4g}"
        shown.update(task, completed=steps, note=note)
        shown.refresh()

    return update


def _note(newest: Checkpoint) -> str:
    value = "" if newest.value is None else f"value {newest.value:.4g}"
    note = "  ".join(filter(None, [value, one_line(newest.meta_params)]))
    return note if len(note) <= _WIDEST_NOTE else note[: _WIDEST_NOTE - 1] + "…"
