"""Plays a script against a real controller, and records what is decided when."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from population.base import codec
from population.base.interfaces import Mutator
from population.base.types import Checkpoint, Ref
from population.controller import PopulationController
from population.journal.sqlite import SqliteJournal
from population.testing import inside, noise
from population.testing.clock import Clock
from population.testing.script import ScriptEvent, Work

Make = Callable[[], Mutator[Any]]
Result = TypeVar("Result")


class Place(NamedTuple):
    """The place of a checkpoint, which is the same in every run of a script.

    Attributes:
        worker_id: The slot that trained it.
        number: The number of its generation among the slot's.
        step: Its step.
    """

    worker_id: int
    number: int
    step: int

    def __str__(self) -> str:
        return f"worker {self.worker_id}'s generation {self.number} at step {self.step}"


class DecidedBranch(NamedTuple):
    """A branch that was decided; equal in every run of a script.

    Attributes:
        place: Where the new generation begins.
        parent: The checkpoint that it goes on from, or None.
        meta_params: Its hyperparameters, encoded.
        reason: The reason that the mutator gave.
        time: When, by the simulated clock.
    """

    place: Place
    parent: Place | None
    meta_params: str
    reason: str
    time: float

    def __str__(self) -> str:
        return (
            f"worker {self.place.worker_id} goes on from {self.parent} with "
            f"{self.meta_params} ({self.reason!r})"
        )


class Outcome(NamedTuple):
    """The consequences of an event.

    Attributes:
        decisions: The branches, by worker id.
        waits: The step at which each slot waits, by worker id.
    """

    decisions: tuple[DecidedBranch, ...]
    waits: tuple[int | None, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.decisions)) or f"no branch, waits {self.waits}"


@dataclasses.dataclass
class Played:
    """What happened in a run of a script.

    Attributes:
        outcomes: The consequences of each event.
        states: The mutator's state after each event, as the journal keeps it.
        error: What was raised, or None; the script ended there.
        opened: Whether the run could be opened.
        stuck: The positions of the events after which every live worker waited.
    """

    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    states: list[str] = dataclasses.field(default_factory=list)
    error: Exception | None = None
    opened: bool = False
    stuck: list[int] = dataclasses.field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether `init` refused this population."""
        return not self.opened and isinstance(self.error, ValueError)

    @property
    def decisions(self) -> list[DecidedBranch]:
        """All branches, in order."""
        return [found for outcome in self.outcomes for found in outcome.decisions]


@dataclasses.dataclass(frozen=True)
class Case:
    """A script, and the run that it is played in.

    Attributes:
        make: Makes a new mutator.
        population: The first meta_params of each worker.
        script: The events.
        seed: The run's seed.
    """

    make: Make
    population: Sequence[Any]
    script: tuple[ScriptEvent, ...]
    seed: int

    @functools.cached_property
    def plain(self) -> Played:
        """The run without any variation."""
        return ScriptRunner(self).run()

    @functools.cached_property
    def _found(self) -> dict[str, Any]:
        return {}

    def once(self, what: str, find: Callable[[], Result]) -> Result:
        """What `find` returns, called only the first time for each `what`."""
        if what not in self._found:
            self._found[what] = find()
        found: Result = self._found[what]
        return found


class ScriptRunner:
    """One run of a case.

    Args:
        case: The case.
        make: Makes the mutator; by default the case does.
        restarts: Whether the controller is made anew before each event.
        times: How often each report is delivered.
        mode: "min" or "max".
        patient: Whether workers wait where the mutator says so.
        noise_seed: Seed of the global random numbers of NumPy and Python.

    Attributes:
        controller: The run.
        position: The index of the event that is played.
        clock: The clock of the run; every event takes a second.
        size: How many workers there are.
        given_up: The workers whose slots are given up.
        last: The last report of each worker.
        previous: Where each worker's previous generation ended.
    """

    def __init__(
        self,
        case: Case,
        *,
        make: Make | None = None,
        restarts: bool = False,
        times: int = 1,
        mode: str = "min",
        patient: bool = False,
        noise_seed: int = 1,
    ) -> None:
        self._case = case
        self._make = make or case.make
        self._restarts = restarts
        self._times = times
        self._mode = mode
        self._patient = patient
        self._noise_seed = noise_seed
        self._known: list[Ref] = []
        self.position = -1
        self.clock = Clock()
        self.size = len(case.population)
        self.given_up: set[int] = set()
        self.last: dict[int, Work] = {}
        self.previous: dict[int, Ref] = {}
        self.journal = SqliteJournal()
        self.controller: PopulationController

    def run(self) -> Played:
        """Play the script to its end, or to the first error."""
        played = Played()
        with noise.global_random_numbers(self._noise_seed):
            try:
                self._play(played)
            except Exception as error:
                # An error of the mutator is a broken promise, to be reported as such.
                played.error = error
            finally:
                self.journal.close()
        return played

    def held(self, worker_id: int) -> bool:
        """Whether the worker waits for a decision; never if workers are not patient."""
        return self._patient and inside.waits(self.controller, worker_id)

    def ahead(self, worker_id: int, steps: int, value: Any, saved: bool) -> Work:
        """The report of a worker that has trained on from its newest checkpoint."""
        newest = self.controller.newest(worker_id)
        step = newest.step + steps
        params = f"params at step {step}" if saved else None
        return worker_id, newest.generation_id, step, params, value

    def deliver(self, reports: Sequence[Work], *, last: bool = True) -> None:
        """Report, once or several times; a worker that reports is waited for again."""
        returned = self.given_up & {report[0] for report in reports}
        if returned:
            self.given_up -= returned
            inside.give_up(self.controller, self.given_up)
        if last:
            self.last.update((report[0], report) for report in reports)
        for _ in range(self._times):
            if len(reports) == 1:
                self.controller.set_eval(*reports[0])
            else:
                self.controller.set_evals(reports)

    def give_up(self, worker_id: int) -> None:
        """Give up a worker's slot, until it reports again."""
        self.given_up.add(worker_id)
        inside.give_up(self.controller, self.given_up)

    def _play(self, played: Played) -> None:
        self._open()
        played.opened = True
        self._known = [work.ref for work in self._newest()]
        for position, event in enumerate(self._case.script):
            self.position = position
            self.clock.advance(1.0)
            if self._restarts:
                self._open()
            event.play(self)
            played.outcomes.append(self._outcome())
            played.states.append(inside.mutator_state(self.journal))
            if self._patient and self._all_wait():
                played.stuck.append(position)

    def _open(self) -> None:
        self.controller = PopulationController(
            self._case.population,
            self._make(),
            mode=self._mode,
            seed=self._case.seed,
            journal=self.journal,
            clock=self.clock,
        )
        inside.end_nothing(self.controller)  # The script does.
        inside.give_up(self.controller, self.given_up)

    def _newest(self) -> list[Checkpoint]:
        return [self.controller.newest(worker_id) for worker_id in range(self.size)]

    def _outcome(self) -> Outcome:
        decisions = []
        for worker_id, newest in enumerate(self._newest()):
            before = self._known[worker_id]
            if newest.generation_id != before.generation_id:
                decisions.append(self._decision(newest.generation_id))
                self.previous[worker_id] = before
            self._known[worker_id] = newest.ref
        waits = (inside.wait_at(self.controller, w) for w in range(self.size))
        return Outcome(tuple(decisions), tuple(waits))

    def _decision(self, generation_id: str) -> DecidedBranch:
        root = self.controller.graph.root(generation_id)
        return DecidedBranch(
            _place(root.ref),
            None if root.parent is None else _place(root.parent),
            codec.digest(root.meta_params),
            root.reason,
            root.time,
        )

    def _all_wait(self) -> bool:
        live = (w for w in range(self.size) if w not in self.given_up)
        return all(inside.waits(self.controller, w) for w in live)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Disable the log in the block, as scripts do odd things on purpose."""
    logger = logging.getLogger("population")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _place(ref: Ref) -> Place:
    _, worker_id, number = ref.generation_id.split("-")
    return Place(int(worker_id), int(number), ref.step)
