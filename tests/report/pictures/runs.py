"""Runs to draw, and what a picture shows."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.reader.recorded_run import RecordedRun
from population.report.pictures import lineages
from population.report.pictures.lineages import Table
from population.space import Categorical, LogUniform, OneMinusLogUniform, Uniform
from tests.helpers import Scripted, reporter

Arrays = dict[str, npt.NDArray[Any]]
SPACE = {
    "opt": {"lr": LogUniform(1e-5, 1.0), "beta": OneMinusLogUniform(0.5, 0.9999)},
    "kind": Categorical(["sgd", "adam", "lion"]),
    "b": Uniform(0, 1),
}


class CopyWorker1(Mutator[None]):
    """At step 2 worker 0 goes on from worker 1."""

    def init(self, view: PopulationView) -> None:
        """Nothing to remember."""

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, dict[int, Branch]]:
        """Branch once."""
        if report.worker_id == 0 and report.checkpoint.step == 2:
            return None, {0: Branch(view.newest(1), {"opt": {"lr": 0.3}}, "copied")}
        return None, {}


def copied() -> RecordedRun:
    """Two workers, two reports each, a branch, and a report with NaN after it."""
    controller = PopulationController(
        [{"opt": {"lr": 0.1}}, {"opt": {"lr": 0.2}}], CopyWorker1()
    )
    ids = [worker.generation_id for worker in controller.workers]
    for step, values in ((1, (4.0, 3.0)), (2, (2.0, 1.0))):
        for worker_id in (1, 0):
            value = values[worker_id]
            metrics = {"accuracy": value / 10, "text": "good"}
            controller.set_eval(worker_id, ids[worker_id], step, "path", value, metrics)
    new = controller.workers[0].generation_id
    controller.set_eval(0, new, 3, "path", 0.5)
    controller.set_eval(0, new, 4, "path", float("nan"))
    return controller.history()


def of_values(
    values: Sequence[Sequence[float | None]],
    metas: Sequence[Any] | None = None,
    **options: Any,
) -> RecordedRun:
    """A run whose members have reported these values at steps 1, 2, ..."""
    metas = [{"lr": 0.1}] * len(values) if metas is None else metas
    controller = PopulationController(metas, Scripted(), **options)
    for worker_id, own in enumerate(values):
        report = reporter(controller, worker_id)
        for value in own:
            report(value)
    return controller.history()


def of_space(size: int, reports: int, seed: int = 0) -> RecordedRun:
    """A run of `SPACE` with random values; without reports it has no value."""
    controller = PopulationController.from_space(SPACE, size, Scripted(), seed=seed)
    rng = np.random.default_rng(seed)
    for worker_id in range(size):
        report = reporter(controller, worker_id)
        for value in rng.uniform(1, 2, reports).tolist():
            report(value)
    return controller.history()


@dataclasses.dataclass
class Written:
    """Columns as a `RecordedRun` has them, for runs that are too large to train."""

    table: Table
    generations: Table
    members: Table

    @property
    def space(self) -> Any:
        """The space."""
        return {"lr": SPACE["b"]}

    @property
    def status(self) -> Any:
        """The mode."""
        return types.SimpleNamespace(mode="min")

    def checkpoints(self) -> Table:
        """The checkpoints."""
        return self.table

    def branches(self) -> Table:
        """The generations."""
        return self.generations

    def workers(self) -> Table:
        """The slots."""
        return self.members


class Builder:
    """Writes the checkpoints and generations of slots, many at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._checkpoints: list[Arrays] = []
        self._generations: list[Arrays] = []
        self._count, self._opened = 0, 0
        self.owner, self.newest = np.zeros((2, size), np.int64)
        self.open(np.arange(size), np.full(size, -1), 0)

    def open(self, slots: lineages.Ints, parents: lineages.Ints, step: int) -> None:
        """Open a generation of each slot from a checkpoint."""
        steps = np.full(len(slots), step)
        self._generations.append({"worker_id": slots, "step": steps, "parent": parents})
        self.owner[slots] = self._opened + np.arange(len(slots))
        self._opened += len(slots)
        self.report(slots, parents, step, np.full(len(slots), np.nan))

    def report(
        self,
        slots: lineages.Ints,
        parents: lineages.Ints,
        step: int,
        values: lineages.Floats,
    ) -> None:
        """Add a checkpoint of each slot; NaN is no value."""
        steps, owner = np.full(len(slots), step), self.owner[slots]
        row: Arrays = {"worker_id": slots, "step": steps, "parent": parents}
        self._checkpoints.append(row | {"value": values, "generation": owner})
        self.newest[slots] = self._count + np.arange(len(slots))
        self._count += len(slots)

    def written(self) -> Written:
        """The run so far."""
        table, found = _joined(self._checkpoints), _joined(self._generations)
        table["row"] = np.arange(self._count)
        table["has_value"] = ~np.isnan(table["value"])
        last = np.zeros(self._opened, np.int64)
        np.maximum.at(last, table["generation"], table["step"])
        found |= {"last_step": last, "checkpoints": np.bincount(table["generation"])}
        found["kind"] = np.where(found["parent"] < 0, "start", "branch").astype(object)
        found["meta_params.lr"] = np.random.default_rng(1).random(self._opened)
        status = np.full(self.size, "training").astype(object)
        slots = {"worker_id": np.arange(self.size), "status": status}
        return Written(table, found, slots)


def large(size: int, reports: int, every: int = 10) -> Written:
    """A run in which the worst fifth copies the best each `every` reports."""
    rng, run = np.random.default_rng(0), Builder(size)
    values, everybody = np.full(size, 5.0), np.arange(size)
    for step in range(1, reports + 1):
        values = values * rng.uniform(0.9, 1.05, size)
        run.report(everybody, run.newest.copy(), step, values)
        if step % every == 0:
            order, fifth = np.argsort(values), size // 5
            best, worst = order[:fifth], order[-fifth:]
            run.open(worst, run.newest[best], step)
            values[worst] = values[best]
    return run.written()


def _joined(parts: Sequence[Arrays]) -> Arrays:
    """The columns of all parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line."""
    pairs = np.asarray(line.get_xydata(), float)
    return [(float(x), float(y)) for x, y in pairs]


def marks(axes: Axes, marker: str) -> list[list[tuple[float, float]]]:
    """The points of each line with this marker, if it has any."""
    drawn = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [points(line) for line in drawn if points(line)]


def segments(axes: Axes) -> list[list[tuple[float, float]]]:
    """All lines of all collections of lines."""
    return [
        [(float(x), float(y)) for x, y in line]
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for line in collection.get_segments()
    ]


def words(axes: Axes) -> list[str]:
    """All texts in and beside axes, without the ticks."""
    titles = [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
    return [*titles, *(text.get_text() for text in axes.texts)]


def drawn(axes: Axes) -> None:
    """Draw the figure, so that its layout and ticks are those that are seen."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def tick_texts(axis: Axis) -> list[str]:
    """The labelled ticks that lie on an axis."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [t.get_text() for at, t in pairs if low <= at <= high and t.get_text()]


def all_axes(figure: Figure | SubFigure) -> list[Axes]:
    """The visible axes of a figure."""
    return [axes for axes in figure.axes if axes.get_visible()]
