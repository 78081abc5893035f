"""A run as a table: one row a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from population.controller import PopulationController
from population.report.progress import hyperparameters


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
    for name in ("worker", "steps", value, *extra, "hyperparameters", "branches"):
        table.add_column(name, justify="right")
    for worker_id, active in enumerate(controller.workers):
        lineage = controller.lineage(controller.newest(worker_id))
        last = next((c.value for c in reversed(lineage) if c.value is not None), None)
        branches = len({checkpoint.generation_id for checkpoint in lineage}) - 1
        table.add_row(
            str(worker_id),
            str(active.step),
            "" if last is None else f"{last:.4f}",
            *(_cell(column[worker_id]) for column in extra.values()),
            hyperparameters(active.meta_params),
            str(branches),
        )
    (console or Console()).print(table)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
