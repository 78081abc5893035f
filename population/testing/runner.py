"""Plays a script against a real controller, and records what is decided when."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from population.base import codec
from population.base.interfaces import Mutator
from population.base.types import Ref
from population.controller import PopulationController
from population.journal.sqlite import SqliteJournal
from population.testing import inside, noise
from population.testing.clock import Clock

Make = Callable[[], Mutator[Any]]
Result = TypeVar("Result")
Work = tuple[int, str, int, Any, Any]  # A report, in the argument order of `set_eval`.


@dataclasses.dataclass(frozen=True)
class ScriptEvent(abc.ABC):
    """Something that happens to a run; its `str` is one line."""

    @abc.abstractmethod
    def play(self, run: ScriptRunner) -> None:
        """Let it happen; nothing happens where it is impossible."""

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """Return one event to replace this one and a later one, or None."""
        del later
        return None


class DecidedBranch(NamedTuple):
    """A branch that was decided; equal in every run of a script.

    Attributes:
        worker_id: The slot.
        place: The first checkpoint of the new generation, as text.
        parent: The checkpoint from which it continues, as text; None: fresh params.
        meta_params: Its hyperparameters, encoded.
        reason: The reason that the mutator gave.
        time: The time of the decision, by the simulated clock.
    """

    worker_id: int
    place: str
    parent: str | None
    meta_params: str
    reason: str
    time: float

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} goes on from {self.parent} with "
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
    """The results of a run of a script.

    Attributes:
        outcomes: The consequences of each event.
        states: The mutator's state after each event, as the journal keeps it.
        error: The exception that ended the script, or None.
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
    def _found(self) -> dict[Callable[[Case], Any], Any]:
        return {}

    def once(self, find: Callable[[Case], Result]) -> Result:
        """Return the result of `find` for this case, which is called only once."""
        if find not in self._found:
            self._found[find] = find(self)
        found: Result = self._found[find]
        return found


@dataclasses.dataclass
class ScriptRunner:
    """One run of a case.

    Attributes:
        case: The case.
        make: Makes the mutator; by default the case does.
        restarts: Whether to construct the controller again before each event.
        times: How often each report is delivered.
        mode: "min" or "max".
        patient: Whether workers wait at the steps that `wait_at` returns.
        noise_seed: Seed of the global random numbers of NumPy and Python.
        position: The index of the event that is played.
        clock: The clock of the run; every event takes a second.
        given_up: The workers whose slots are given up.
        last: The last report of each worker.
        newest: Each worker's newest checkpoint after the event before, by worker id.
        previous: The last checkpoint of each worker's previous generation.
        journal: The journal of the run.
        controller: The run.
    """

    case: Case
    _: dataclasses.KW_ONLY
    make: Make | None = None
    restarts: bool = False
    times: int = 1
    mode: str = "min"
    patient: bool = False
    noise_seed: int = 1
    position: int = -1
    clock: Clock = dataclasses.field(default_factory=Clock)
    given_up: set[int] = dataclasses.field(default_factory=set)
    last: dict[int, Work] = dataclasses.field(default_factory=dict)
    newest: list[Ref] = dataclasses.field(default_factory=list)
    previous: dict[int, Ref] = dataclasses.field(default_factory=dict)
    journal: SqliteJournal = dataclasses.field(default_factory=SqliteJournal)
    controller: PopulationController = dataclasses.field(init=False)

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.case.population)

    def run(self) -> Played:
        """Play the script to its end, or to the first error."""
        played = Played()
        with noise.global_random_numbers(self.noise_seed):
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
        return self.patient and inside.waits(self.controller, worker_id)

    def ahead(self, worker_id: int, steps: int, value: Any, saved: bool) -> Work:
        """Return the report of a worker that has trained further."""
        newest = inside.newest(self.controller, worker_id)
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
        for _ in range(self.times):
            if len(reports) == 1:
                self.controller.set_eval(*reports[0])
            else:
                self.controller.set_evals(reports)

    def give_up(self, worker_id: int) -> None:
        """Give up a worker's slot, until it reports a later step."""
        self.given_up.add(worker_id)
        inside.give_up(self.controller, self.given_up)

    def _play(self, played: Played) -> None:
        self._open()
        played.opened = True
        self.newest = [inside.newest(self.controller, w).ref for w in range(self.size)]
        for position, event in enumerate(self.case.script):
            self.position = position
            self.clock.advance(1.0)
            if self.restarts:
                self._open()
            event.play(self)
            played.outcomes.append(self._outcome())
            played.states.append(inside.mutator_state(self.journal))
            live = (w for w in range(self.size) if w not in self.given_up)
            if self.patient and all(map(self.held, live)):
                played.stuck.append(position)

    def _open(self) -> None:
        self.controller = PopulationController(
            self.case.population,
            (self.make or self.case.make)(),
            mode=self.mode,
            seed=self.case.seed,
            journal=self.journal,
            clock=self.clock,
        )
        inside.end_nothing(self.controller)  # The script does.
        inside.give_up(self.controller, self.given_up)

    def _outcome(self) -> Outcome:
        decisions = []
        for worker_id, before in enumerate(self.newest):
            now = inside.newest(self.controller, worker_id).ref
            if now.generation_id != before.generation_id:
                decisions.append(self._decision(now.generation_id))
                self.previous[worker_id] = before
            self.newest[worker_id] = now
        waits = tuple(work.wait_at for work in self.controller.workers)
        return Outcome(tuple(decisions), waits)

    def _decision(self, generation_id: str) -> DecidedBranch:
        root = self.controller.graph.root(generation_id)
        return DecidedBranch(
            root.worker_id,
            _place(root.ref),
            None if root.parent is None else _place(root.parent),
            codec.digest(root.meta_params),
            root.reason,
            root.time,
        )


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


def _place(ref: Ref) -> str:
    """Return a checkpoint in words that are the same in every run of a script."""
    _, worker_id, number = ref.generation_id.split("-")
    return f"worker {worker_id}'s generation {number} at step {ref.step}"
