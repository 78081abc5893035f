"""A run as a table: one row a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from population.controller import PopulationController
from population.report.hyperparameters import flattened, short


def print_workers(
    controller: PopulationController,
    extra: Mapping[str, Sequence[Any]] | None = None,
    value: str = "value",
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print what became of each worker.

    Args:
        controller: The run.
        extra: Further columns by name, one entry for each worker.
        value: What the reported value is called.
        title: Above the table.
        console: Where to print; by default standard output.
    """
    extra = extra or {}
    table = Table(title=title)
    workers = controller.workers
    names = list(dict.fromkeys(n for w in workers for n in flattened(w.meta_params)))
    for name in ("worker", "steps", value, *extra, *names, "branches"):
        table.add_column(name, justify="right")
    for worker_id, active in enumerate(workers):
        lineage = controller.lineage(controller.newest(worker_id))
        last = next((c.value for c in reversed(lineage) if c.value is not None), None)
        branches = len({checkpoint.generation_id for checkpoint in lineage}) - 1
        hyperparameters = flattened(active.meta_params)
        table.add_row(
            str(worker_id),
            str(active.step),
            "" if last is None else f"{last:.4f}",
            *(_cell(column[worker_id]) for column in extra.values()),
            *(short(hyperparameters.get(name, "")) for name in names),
            str(branches),
        )
    (console or Console()).print(table)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
