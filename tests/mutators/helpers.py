"""A population trained by hand, and its decisions as plain data."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from population import ActiveWorker, Checkpoint, Mutator, PopulationController, Ref
from population.testing import inside
from tests import probe


class Clock:
    """A clock whose seconds pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now


class Run:
    """Raw loops: reports go in, decisions come out as plain data.

    Args:
        mutator: Makes the policy, again whenever the run is opened.
        population: The meta_params of each worker.
        log_dir: The run folder.
        reopen: Whether the controller is made again before each call.
        options: Further arguments of the controller.
    """

    def __init__(
        self,
        mutator: Callable[[], Mutator[Any]],
        population: Sequence[Any],
        log_dir: pathlib.Path | None = None,
        *,
        reopen: bool = False,
        **options: Any,
    ) -> None:
        self._mutator = mutator
        self._population = list(population)
        self._log_dir = log_dir
        self._reopen = reopen
        self._options = options
        self.controller = self._open()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.controller.close()

    def restart(self) -> None:
        """Construct the controller again on the same folder."""
        self.controller.close()
        self.controller = self._open()

    def work(self, worker_id: int) -> ActiveWorker:
        """The work of the slot."""
        self._before_call()
        found = self.controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert found is not None
        return found

    def report(
        self,
        worker_id: int,
        step: int,
        value: Any,
        params: Any = None,
        generation_id: str | None = None,
    ) -> None:
        """Report for the slot's present generation, or for the given one."""
        if generation_id is None:
            generation_id = self.controller.workers[worker_id].generation_id
        self._before_call()
        self.controller.set_eval(worker_id, generation_id, step, params, value)

    def advance(self, worker_id: int, value: Any, steps: int = 1) -> None:
        """Train the slot further from where it is, then report."""
        self.report(worker_id, self.newest(worker_id).step + steps, value)

    def newest(self, worker_id: int) -> Checkpoint:
        """The checkpoint from which the slot continues, or which it has reported."""
        return inside.newest(self.controller, worker_id)

    def metas(self) -> list[Any]:
        """The hyperparameters in force, by worker id."""
        return [work.meta_params for work in self.controller.workers]

    def roots(self, worker_id: int | None = None) -> list[Checkpoint]:
        """The first checkpoint of each generation, in order, of one slot or of all."""
        graph = self.controller.graph
        found = [graph.root(generation_id) for generation_id in graph]
        return [c for c in found if worker_id is None or c.worker_id == worker_id]

    def decisions(self) -> list[tuple[Any, ...]]:
        """All branches, in order, without ids and times."""
        return [
            (name(root.ref), root.meta_params, root.reason, name(root.parent))
            for root in self.roots()
        ]

    def by_slot(self) -> list[list[tuple[Any, ...]]]:
        """The branches of each slot, in any order among the slots."""
        everything = self.decisions()
        size = len(self._population)
        return [[d for d in everything if d[0][0] == slot] for slot in range(size)]

    def _open(self) -> PopulationController:
        return PopulationController(
            self._population, self._mutator(), self._log_dir, **self._options
        )

    def _before_call(self) -> None:
        if self._reopen:
            self.restart()


def name(ref: Ref | None) -> tuple[int, int, int] | None:
    """A checkpoint's slot, number of its generation, and step."""
    if ref is None:
        return None
    _, worker_id, number = ref.generation_id.split("-")
    return int(worker_id), int(number), ref.step


def count_statements(controller: PopulationController, statements: list[str]) -> None:
    """From now on, collect the SQL that the controller executes."""
    probe.connection(controller).set_trace_callback(statements.append)


def halve(meta: float) -> float:
    """A mutation that is easy to follow."""
    return meta / 2


def nudged(meta: float, rng: Any) -> float:
    """A mutation that shows its random numbers."""
    return meta + float(rng.normal())
