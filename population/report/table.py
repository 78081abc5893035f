"""A run as a table: a row for each worker, or a column if there are many entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from population.controller import PopulationController
from population.report.hyperparameters import flattened, short

_MOST_COLUMNS = 6  # Hyperparameters beyond which a row would not fit a terminal.


def print_workers(
    controller: PopulationController,
    extra: Mapping[str, Sequence[Any]] | None = None,
    value: str = "value",
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print the progress of each worker: steps, value, hyperparameters, branches.

    Args:
        controller: The run.
        extra: Further columns by name, one entry for each worker.
        value: The name of the reported value.
        title: The title above the table.
        console: The console to print on; by default standard output.
    """
    workers = controller.workers
    names = list(dict.fromkeys(n for w in workers for n in flattened(w.meta_params)))
    diverged = controller.diverged()
    shown = ["worker", "steps", value, *(extra or {}), *names, "branches"]
    shown += ["diverged"] if any(diverged) else []
    columns: dict[str, list[str]] = {name: [] for name in shown}
    for worker_id, active in enumerate(workers):
        lineage = controller.lineage(controller.newest(worker_id))
        last = next((c.value for c in reversed(lineage) if c.value is not None), None)
        hyperparameters = flattened(active.meta_params)
        cells = {
            "worker": str(worker_id),
            "steps": str(active.step),
            value: "" if last is None else f"{last:.4f}",
            "branches": str(len({c.generation_id for c in lineage}) - 1),
            "diverged": str(diverged[worker_id]),
        }
        cells |= {name: _cell(row[worker_id]) for name, row in (extra or {}).items()}
        cells |= {name: short(hyperparameters.get(name, "")) for name in names}
        for name, column in columns.items():
            column.append(cells[name])
    rows = [[name, *column] for name, column in columns.items()]
    if len(names) <= _MOST_COLUMNS:
        rows = [list(row) for row in zip(*rows, strict=True)]
    (console or Console()).print(_table(rows, title))


def _table(rows: list[list[str]], title: str) -> Table:
    """Return a table whose first row is its header."""
    table = Table(title=title)
    for header in rows[0]:
        table.add_column(header, justify="right")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
