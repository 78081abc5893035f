"""Plays a script against a real controller, and records what is decided when."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from population.base import codec
from population.base.errors import NoProgressError
from population.base.interfaces import Mutator
from population.base.types import Ref
from population.controller import PopulationController
from population.core.branching import is_restart
from population.journal.sqlite import SqliteJournal
from population.testing import inside, noise
from population.testing.clock import Clock

Make = Callable[[], Mutator[Any]]
Result = TypeVar("Result")
Work = tuple[int, str, int, Any, Any, Any]  # A report, as `set_eval` takes it.
METRICS = ("loss", "accuracy")  # The names of the metrics of reports by default.
MAX_FAILURES = 3  # As in a run by default: then a slot is retired.


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


class OpenedGeneration(NamedTuple):
    """A generation that a slot began; equal in every run of a script.

    Attributes:
        worker_id: The slot.
        place: The first checkpoint of the new generation, as text.
        parent: The checkpoint from which it continues, as text; None: fresh params.
        meta_params: Its hyperparameters, encoded.
        reason: The mutator's reason, or the library's after a failure.
        time: The time of the event, by the simulated clock.
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

    @property
    def is_decided(self) -> bool:
        """Whether the mutator decided it."""
        return not is_restart(self.reason)


class Retirement(NamedTuple):
    """A slot that was retired; equal in every run of a script.

    Attributes:
        worker_id: The slot.
        kind: "retired" by a decision; "failed" or "diverged" for the last time.
        reason: The mutator's reason, or the last failure.
    """

    worker_id: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"worker {self.worker_id} is retired, {self.kind} ({self.reason!r})"

    @property
    def is_decided(self) -> bool:
        """Whether the mutator decided it."""
        return self.kind == "retired"


class Outcome(NamedTuple):
    """The consequences of an event.

    Attributes:
        generations: The generations that slots began, by worker id.
        retirements: The slots that were retired, by worker id.
        waits: The step at which each slot waits, by worker id.
    """

    generations: tuple[OpenedGeneration, ...]
    retirements: tuple[Retirement, ...]
    waits: tuple[int | None, ...]

    def __str__(self) -> str:
        found = [*map(str, self.generations), *map(str, self.retirements)]
        return "; ".join(found) or f"no branch, waits {self.waits}"

    def without_reasons(self) -> Outcome:
        """Return it without the reasons, which may contain values."""
        return self._replace(
            generations=tuple(g._replace(reason="") for g in self.generations),
            retirements=tuple(r._replace(reason="") for r in self.retirements),
        )


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
    def decisions(self) -> list[OpenedGeneration | Retirement]:
        """The mutator's decisions, in order."""
        found: list[OpenedGeneration | Retirement] = []
        for outcome in self.outcomes:
            found += (g for g in outcome.generations if g.is_decided)
            found += (r for r in outcome.retirements if r.is_decided)
        return found


@dataclasses.dataclass(frozen=True)
class Case:
    """A script, and the run that it is played in.

    Attributes:
        make: Makes a new mutator.
        population: The first meta_params of each worker.
        script: The events.
        seed: The run's seed.
        metrics: The names of the metrics of each report.
        bounded: The number of entries that the state may grow to.
    """

    make: Make
    population: Sequence[Any]
    script: tuple[ScriptEvent, ...]
    seed: int
    metrics: tuple[str, ...] = METRICS
    bounded: int = 0

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
        token: What all generation ids of the run begin with.
        position: The index of the event that is played.
        clock: The clock of the run; every event takes a second.
        given_up: The workers whose slots are given up.
        last: The last report of each worker.
        newest: Each worker's newest checkpoint after the event before, by worker id.
        previous: The last checkpoint of each worker's previous generation.
        before: The slots that were retired before the event.
        qualities: How good each generation is, in scripts with ranks.
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
    token: str = "a11ce5"
    position: int = -1
    clock: Clock = dataclasses.field(default_factory=Clock)
    given_up: set[int] = dataclasses.field(default_factory=set)
    last: dict[int, Work] = dataclasses.field(default_factory=dict)
    newest: list[Ref] = dataclasses.field(default_factory=list)
    previous: dict[int, Ref] = dataclasses.field(default_factory=dict)
    before: Collection[int] = ()
    qualities: dict[str, Any] = dataclasses.field(default_factory=dict)
    journal: SqliteJournal = dataclasses.field(default_factory=SqliteJournal)
    controller: PopulationController = dataclasses.field(init=False)

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.case.population)

    def run(self) -> Played:
        """Play the script to its end, or to the first error."""
        played = Played()
        same = noise.global_random_numbers(self.noise_seed)
        with same, inside.run_token(self.token):
            try:
                self._play(played)
            except Exception as error:
                # An error of the mutator is a broken promise, to be reported as such.
                played.error = error
            finally:
                self.journal.close()
        return played

    @property
    def retired(self) -> Collection[int]:
        """The workers whose slots are retired."""
        return inside.retired(self.controller)

    @property
    def live(self) -> list[int]:
        """The workers whose slots are neither retired nor given up."""
        away = {*self.given_up, *self.retired}
        return [w for w in range(self.size) if w not in away]

    def held(self, worker_id: int) -> bool:
        """Whether the worker is retired, or waits; only patient workers ever wait."""
        if worker_id in self.retired:
            return True
        return self.patient and inside.waits(self.controller, worker_id)

    def ahead(self, worker_id: int, steps: int, value: Any, saved: bool) -> Work:
        """Return the report of a worker that has trained further."""
        newest = inside.newest(self.controller, worker_id)
        step = newest.step + steps
        params = f"params at step {step}" if saved else None
        return self.work(worker_id, newest.generation_id, step, params, value)

    def work(
        self, worker_id: int, generation_id: str, step: int, params: Any, value: Any
    ) -> Work:
        """Return a report; it has metrics if it has a value."""
        metrics = None
        if value is not None:
            metrics = {m: _metric(m, worker_id, step) for m in self.case.metrics}
        return worker_id, generation_id, step, params, value, metrics

    def deliver(self, reports: Sequence[Work], *, last: bool = True) -> None:
        """Report, once or several times; a worker that reports is waited for again."""
        returned = self.given_up & {report[0] for report in reports}
        if returned:
            self.given_up -= returned
            inside.give_up(self.controller, self.given_up)
        if last:
            self.last.update((report[0], report) for report in reports)
        for _ in range(self.times):
            with contextlib.suppress(NoProgressError):  # All slots are retired now.
                if len(reports) == 1:
                    self.controller.set_eval(*reports[0])
                else:
                    self.controller.set_evals(reports)

    def give_up(self, worker_id: int) -> None:
        """Give up a worker's slot, until it reports a later step."""
        self.given_up.add(worker_id)
        inside.give_up(self.controller, self.given_up)

    def fail(self, worker_id: int, reason: str) -> None:
        """Let the trial of a worker fail."""
        with contextlib.suppress(NoProgressError):  # All slots are retired now.
            self.controller.fail(worker_id, reason)

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
            live = self.live if self.patient else []
            if live and all(map(self.held, live)):
                played.stuck.append(position)

    def _open(self) -> None:
        self.controller = PopulationController(
            self.case.population,
            (self.make or self.case.make)(),
            mode=self.mode,
            seed=self.case.seed,
            journal=self.journal,
            max_failures=MAX_FAILURES,
            clock=self.clock,
        )
        inside.end_nothing(self.controller)  # The script does.
        inside.give_up(self.controller, self.given_up)

    def _outcome(self) -> Outcome:
        generations = []
        for worker_id, before in enumerate(self.newest):
            now = inside.newest(self.controller, worker_id).ref
            if now.generation_id != before.generation_id:
                generations.append(self._opened(now.generation_id))
                self.previous[worker_id] = before
            self.newest[worker_id] = now
        retired, statuses = self.retired, inside.statuses(self.controller)
        retirements = tuple(
            Retirement(w, statuses[w].kind, statuses[w].reason)
            for w in sorted(retired)
            if w not in self.before
        )
        self.before = retired
        waits = tuple(work.wait_at for work in self.controller.workers)
        return Outcome(tuple(generations), retirements, waits)

    def _opened(self, generation_id: str) -> OpenedGeneration:
        root = self.controller.graph.root(generation_id)
        return OpenedGeneration(
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


def _metric(name: str, worker_id: int, step: int) -> float:
    """Return a number between 0 and 1 that is the same in every run."""
    return zlib.crc32(f"{name} {worker_id} {step}".encode()) % 10_007 / 10_007


def _place(ref: Ref) -> str:
    """Return a checkpoint in words that are the same in every run of a script."""
    _, worker_id, number = ref.generation_id.split("-")
    return f"worker {worker_id}'s generation {number} at step {ref.step}"
