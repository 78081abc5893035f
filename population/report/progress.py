"""Progress bars of a run while it trains."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from rich import progress

from population.base.types import Checkpoint
from population.controller import PopulationController
from population.report.hyperparameters import one_line, short

_REFRESH_S = 0.25
_MOST_BARS = 16
_WIDEST_NOTE = 48  # More would push the bar itself off a narrow terminal.


@contextlib.contextmanager
def bars(controller: PopulationController) -> Iterator[None]:
    """Show what each slot has reported: steps, value, hyperparameters.

    They are those of its newest report. Beyond 16 slots there is one bar for all, which
    counts a retired slot as if it had reached the end.
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
        retired = controller.retired
        for worker_id, task in enumerate(tasks):
            newest = controller.newest(worker_id)
            note = _note(newest, worker_id in retired)
            shown.update(task, completed=newest.step, note=note)
        shown.refresh()

    return update


def _one_for_all(shown: progress.Progress, controller: PopulationController) -> Any:
    size, end = len(controller.workers), controller.stop.steps
    total = size * end if end else None
    task = shown.add_task(f"{size} workers", total=total, note="")

    def update() -> None:
        best, retired = controller.best(), controller.retired
        steps = sum(
            end if end and worker_id in retired else worker.step
            for worker_id, worker in enumerate(controller.workers)
        )
        notes = [f"{len(retired)} retired"] if retired else []
        if best is not None:
            notes.append(f"best {short(best.value)}")
        shown.update(task, completed=steps, note="  ".join(notes))
        shown.refresh()

    return update


def _note(newest: Checkpoint, is_retired: bool) -> str:
    parts = ["retired"] if is_retired else []
    if newest.value is not None:
        parts.append(f"value {short(newest.value)}")
    note = "  ".join((*parts, one_line(newest.meta_params)))
    return note if len(note) <= _WIDEST_NOTE else note[: _WIDEST_NOTE - 1] + "…"
