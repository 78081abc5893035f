"""Plots of a run: learning curves by lineage, hyperparameters over steps.

Needs matplotlib (`pip install population-jax[report]`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from population.base.run_paths import run_folder
from population.base.types import Checkpoint, Ref
from population.controller import PopulationController
from population.core.branching import is_restart
from population.report.hyperparameters import numbers
from population.space import OneMinusLogUniform, domains

NEAR_ONE = "near one"
_COLOURS = colormaps["tab10"]
# The mark at the end of a retired slot.
_RETIRED: dict[str, Any] = {"marker": "x", "linestyle": "", "markersize": 5}


@dataclasses.dataclass
class Line:
    """The checkpoints of one generation, in the order of their steps.

    Attributes:
        worker_id: The slot that trained it.
        founder: The slot in which its lineage began.
        points: Its checkpoints by step; the first one is its branching point.
        origin: The checkpoint that it branched off from, where that was reported; None
            at the start.
        branched: Whether a decision opened it, or one before it that was not trained.
        retired: Whether it is the last one that a retired slot has trained.
    """

    worker_id: int
    founder: int
    points: list[Checkpoint]
    origin: Checkpoint | None
    branched: bool = False
    retired: bool = False

    @property
    def is_trained(self) -> bool:
        """Whether its slot has reported anything of it."""
        return len(self.points) > 1 or self.points[0].value is not None


def save(
    controller: PopulationController,
    folder: str | os.PathLike[str],
    *,
    value: str = "value",
    log_value: bool = False,
    log: Iterable[str] | None = None,
) -> list[pathlib.Path]:
    """Write `learning_curves.png` and a plot of each numeric hyperparameter.

    Args:
        controller: The run.
        folder: The folder for the files; made if it does not exist.
        value: The name of the reported value.
        log_value: Whether its axis is logarithmic.
        log: The names of the hyperparameters with logarithmic axes; None: those whose
            domain in the run's recorded space is logarithmic.

    Returns:
        The files.
    """
    place = run_folder(folder, "folder")
    place.mkdir(parents=True, exist_ok=True)
    lines = generations(controller)
    metas = [line.points[0].meta_params for line in lines]
    names = sorted({name for meta_params in metas for name in numbers(meta_params)})
    scales = _scales(controller.space) if log is None else dict.fromkeys(log, "log")
    files = [place / "learning_curves.png"]
    with _picture(files[0]) as axes:
        learning_curves(axes, lines, value, log_value)
    for name in names:
        files.append(place / f"{name.replace('/', '_')}.png")
        with _picture(files[-1]) as axes:
            schedules(axes, lines, name, scale=scales.get(name, "linear"))
    return files


def generations(controller: PopulationController) -> list[Line]:
    """Return the generations of a run, in the order in which they were opened.

    Without those that began with a branch or a restart and were never trained.
    """
    lines: dict[str, Line] = {}
    known: dict[Ref, Checkpoint] = {}
    for checkpoint in controller.history():
        known[checkpoint.ref] = checkpoint
        line = lines.get(checkpoint.generation_id)
        if line is not None:
            line.points.append(checkpoint)
            continue
        origin = None if checkpoint.parent is None else known[checkpoint.parent]
        founder = checkpoint.worker_id
        if origin is not None:
            founder = lines[origin.generation_id].founder
            origin = _where_reported(origin, lines)
        lines[checkpoint.generation_id] = Line(
            checkpoint.worker_id, founder, [checkpoint], origin
        )
    for line in lines.values():
        line.points.sort(key=lambda checkpoint: checkpoint.step)
    found = _trained(lines.values())
    last = {line.worker_id: line for line in found}
    for worker_id in controller.retired & last.keys():
        last[worker_id].retired = True
    return found


def learning_curves(
    axes: Axes, lines: list[Line], value: str, log_value: bool = False
) -> None:
    """Draw the values over steps, in one colour for each lineage's first worker."""
    shown: set[int] = set()
    for line in lines:
        points = ([] if line.origin is None else [line.origin]) + line.points
        measured = [c for c in points if c.value is not None and not c.diverged]
        if not measured:
            continue
        label = None if line.founder in shown else f"began as worker {line.founder}"
        shown.add(line.founder)
        colour = _COLOURS(line.founder % 10)
        axes.plot(
            [checkpoint.step for checkpoint in measured],
            [checkpoint.value or 0.0 for checkpoint in measured],
            color=colour,
            linewidth=1.1,
            alpha=0.8,
            label=label,
        )
        if line.retired:
            end = measured[-1]
            axes.plot(end.step, end.value or 0.0, color=colour, **_RETIRED)
    _explain_retirement(axes, lines)
    axes.set(xlabel="training steps", ylabel=value, title="Learning curves by lineage")
    if log_value:
        axes.set_yscale("log")
    if shown:
        axes.legend(fontsize="small")


def schedules(axes: Axes, lines: list[Line], name: str, scale: str = "linear") -> None:
    """Draw a hyperparameter of each worker over steps, branches marked by dots.

    A generation that the library opened, for example to resume, is no branch: it has a
    dot only if it has another value of the hyperparameter.
    """
    before: dict[int, tuple[int, float]] = {}  # By worker id, the end of its line.
    for line in lines:
        root = line.points[0]
        number = numbers(root.meta_params).get(name)
        if number is None:
            continue
        colour = _COLOURS(line.worker_id % 10)
        begin, end = root.step, line.points[-1].step
        label = None if line.worker_id in before else f"worker {line.worker_id}"
        axes.plot([begin, end], [number] * 2, color=colour, linewidth=1.6, label=label)
        if line.worker_id in before:
            step, old = before[line.worker_id]
            if step <= begin:  # Not for a branch to an older checkpoint.
                axes.plot([step, begin], [old, number], color=colour, linewidth=0.6)
            if line.branched or number != old:
                axes.plot(begin, number, "o", color=colour, markersize=4)
        if line.retired:
            axes.plot(end, number, color=colour, **_RETIRED)
        before[line.worker_id] = (end, number)
    axes.plot([], [], "o", color="grey", markersize=4, label="branch")
    _explain_retirement(axes, lines)
    axes.set(xlabel="training steps", ylabel=name, title=f"{name} of each worker")
    if scale == NEAR_ONE:
        _spread_near_one(axes)
    else:
        axes.set_yscale(scale)
    axes.legend(fontsize="small")


def _trained(lines: Iterable[Line]) -> list[Line]:
    """Return the lines that were trained, and each slot's first one."""
    found: list[Line] = []
    branched: set[int] = set()
    for line in lines:
        worker_id = line.worker_id
        if line.origin is not None and not is_restart(line.points[0].reason):
            branched.add(worker_id)
        if line.origin is None or line.is_trained:
            line.branched = worker_id in branched
            branched.discard(worker_id)
            found.append(line)
    return found


def _where_reported(origin: Checkpoint, lines: Mapping[str, Line]) -> Checkpoint:
    """Return the checkpoint itself, or the one whose copy it is.

    The first checkpoint of a generation is a copy, without a value of its own.
    """
    while True:
        line = lines[origin.generation_id]
        is_copy = origin.ref == line.points[0].ref and origin.value is None
        if line.origin is None or not is_copy:
            return origin
        origin = line.origin


def _explain_retirement(axes: Axes, lines: list[Line]) -> None:
    """Add the mark of retired slots to the legend, if there are any."""
    if any(line.retired for line in lines):
        axes.plot([], [], color="grey", label="retired", **_RETIRED)


def _scales(space: Any) -> dict[str, str]:
    """Return the scale of each hyperparameter of a run's space that is not linear."""
    known = {} if space is None else domains(space)
    return {
        name: "log" if domain.log else NEAR_ONE
        for name, domain in known.items()
        if domain.log or isinstance(domain, OneMinusLogUniform)
    }


def _spread_near_one(axes: Axes) -> None:
    """Scale an axis so that 0.9 is as far from 0.99 as that is from 0.999."""
    axes.set_yscale(
        "function",
        functions=(
            lambda x: -np.log10(np.maximum(1 - np.asarray(x), 1e-12)),
            lambda x: 1 - 10.0 ** -np.asarray(x),
        ),
    )
    low, high = axes.get_ylim()
    ticks = [0.0, 0.5, *(1 - k * 10.0**-e for e in range(1, 7) for k in (1, 0.5))]
    axes.set_yticks([tick for tick in ticks if low <= tick <= high] or [low, high])
    axes.yaxis.set_major_formatter(lambda x, _: f"{x:.7g}")
    axes.minorticks_off()


@contextlib.contextmanager
def _picture(file: pathlib.Path) -> Iterator[Axes]:
    """Axes to draw on; written to the file at the end of the block."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    yield axes
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
