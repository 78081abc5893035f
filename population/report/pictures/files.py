"""The usual pictures of a run as files."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from population.base.run_paths import run_folder
from population.report.pictures import ticks
from population.report.pictures.curves import learning_curves
from population.report.pictures.schedules import hyperparameter, winner
from population.report.pictures.settings import explored_pairs
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot
from population.report.pictures.tree import lineage_tree
from population.report.pictures.whole import progress

_DPI = 120
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def save(
    run: Drawable,
    folder: str | os.PathLike[str],
    *,
    metric: str = VALUE,
    value: str | None = None,
    log_value: bool = False,
    log: Iterable[str] | None = None,
) -> list[pathlib.Path]:
    """Write the usual pictures as PNG files.

    They are `learning_curves.png`, `winner.png`, `lineage_tree.png`, `progress.png`,
    `explored.png`, and one of each hyperparameter with its name, in which characters
    that are not common in names of files are "_".

    Args:
        run: The run, from `population.read` or `controller.history()`.
        folder: The folder for the files; made if it does not exist.
        metric: "value", or the name of a reported metric.
        value: What the metric is called in the pictures; None: its own name.
        log_value: Whether its axis is logarithmic.
        log: The names of the hyperparameters with logarithmic axes; the others have
            linear ones. None: as the run's space says.

    Returns:
        The files.

    Raises:
        ValueError: The run has no such metric.
    """
    place = run_folder(folder, "folder")
    place.mkdir(parents=True, exist_ok=True)
    source, taken = snapshot(run), set[str]()
    shared: dict[str, Any] = {"metric": metric, "label": value}
    files = []
    chosen = None if log is None else set(log)
    for name, figure in _pictures(source, shared, log_value, chosen):
        file = place / f"{_file_name(name, taken)}.png"
        figure.savefig(file, dpi=_DPI)
        files.append(file)
    return files


def _pictures(
    source: Snapshot, shared: dict[str, Any], log_value: bool, log: set[str] | None
) -> Iterator[tuple[str, Any]]:
    """Yield the name and the figure of each picture."""
    yield "learning_curves", learning_curves(source, log=log_value, **shared).figure
    yield "winner", winner(source, log=log_value, **shared)
    tree = lineage_tree(source, colour=shared["metric"], label=shared["label"])
    yield "lineage_tree", tree.figure
    yield "progress", progress(source, log=log_value, **shared).figure
    yield "explored", explored_pairs(source)
    for name in source.hyperparameters:
        scale = None
        if log is not None:
            scale = ticks.LOG if name in log else ticks.LINEAR
        yield name, hyperparameter(source, name, scale=scale).figure


def _file_name(name: str, taken: set[str]) -> str:
    """Return a name for a file that is not taken; it is taken from now on."""
    base = _ODD.sub("_", name)[:_LONGEST].lstrip(".") or "_"
    found, number = base, 1
    while found.lower() in taken:  # Some systems do not tell A from a.
        number += 1
        found = f"{base}-{number}"
    taken.add(found.lower())
    return found
