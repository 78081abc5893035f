"""The table of the protocol in `docs/concepts.md`: a test executes each row."""

from __future__ import annotations

import gc
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from population import (
    Branch,
    Checkpoint,
    Event,
    Keep,
    Mutator,
    ParamsError,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
    Worker,
)
from population.base import Failure, LostParamsError, NoProgressError
from tests import probe
from tests.helpers import Clock, content, everything, generation, poll, work

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "concepts.md"
HEADER = "| call | situation | what happens |"
Decisions = Mapping[int, Branch | Retire]
TESTS: dict[tuple[str, str], Callable[[pathlib.Path], None]] = {}


class Policy(Mutator[int]):
    """Decides once, as the test says, and remembers what it was shown.

    Attributes:
        shown: What it was shown: a worker id and a step, or the reason of a failure.
    """

    def __init__(self) -> None:
        self._next: Any = {}
        self._shown: list[Any] = []

    @property
    def shown(self) -> list[Any]:
        """What it was shown since the last call of `decide`."""
        return self._shown

    def decide(self, decisions: Any) -> None:
        """Make these decisions at the next call, or raise this exception."""
        self._next = decisions
        self._shown.clear()

    def init(self, view: PopulationView) -> int:
        """Count the decisions."""
        return 0

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide as the test says."""
        self._shown.append((report.worker_id, report.checkpoint.step))
        return self._decided(state)

    def failed(
        self, state: int, failure: Failure, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide as the test says."""
        self._shown.append((failure.worker_id, failure.reason))
        return self._decided(state)

    def _decided(self, state: int) -> tuple[int, Decisions]:
        found, self._next = self._next, {}
        if isinstance(found, Exception):
            raise found
        return state + bool(found), found


class Lenient(Policy):
    """A policy under which a divergence is no failure."""

    divergence_fails = False


class Run:
    """A run with two slots.

    Attributes:
        policy: Its mutator.
        events: The events so far.
        controller: Its controller.
    """

    def __init__(
        self,
        folder: pathlib.Path | None = None,
        *,
        policy: Policy | None = None,
        **options: Any,
    ) -> None:
        self.policy = policy or Policy()
        self.events: list[Event] = []
        self.controller = PopulationController(
            [{"lr": 0}, {"lr": 1}],
            self.policy,
            folder,
            on_event=self.events.append,
            **options,
        )

    def report(
        self, worker_id: int, step: int, value: float | None, params: Any = "p"
    ) -> Checkpoint:
        """Report a step of the slot's present generation."""
        name = generation(self.controller, worker_id)
        self.controller.set_eval(worker_id, name, step, params, value)
        return self.controller.graph[name][step]

    def decide(self, decisions: Any, worker_id: int = 1) -> Checkpoint:
        """Have the mutator decide at the next report of a slot."""
        self.policy.decide(decisions)
        return self.report(worker_id, self.newest(worker_id).step + 1, 1.0)

    def retire(self, worker_id: int) -> None:
        """Retire a slot by a decision."""
        self.decide({worker_id: Retire("enough")}, 1 - worker_id)
        assert self.retired == {worker_id}
        self.policy.decide({})

    def newest(self, worker_id: int = 0) -> Checkpoint:
        """The checkpoint at which a slot is."""
        return probe.newest(self.controller)[worker_id]

    @property
    def retired(self) -> set[int]:
        """The retired slots."""
        return probe.retired(self.controller)

    def failures(self, worker_id: int = 0) -> int:
        """How often a slot has failed in a row."""
        return probe.failures(self.controller)[worker_id]

    def kinds(self) -> list[str]:
        """The kinds of the events since the last call."""
        found = [event.kind for event in self.events]
        self.events.clear()
        return found


class Row(NamedTuple):
    """A row of the table: what happens if a call comes in a situation."""

    call: str
    situation: str


def rows() -> list[Row]:
    """The rows of the table."""
    lines = PAGE.read_text().partition(f"{HEADER}\n")[2].splitlines()[1:]
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        call, situation, _ = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(call.strip("`"), situation))
    return found


Test = Callable[[pathlib.Path], None]


def row(call: str, situation: str) -> Callable[[Test], Test]:
    """Make a function the test of a row."""

    def add(test: Test) -> Test:
        assert (call, situation) not in TESTS
        TESTS[call, situation] = test
        return test

    return add


@pytest.mark.parametrize("found", rows(), ids=" - ".join)
def test_a_row_is_as_the_page_says(found: Row, tmp_path: pathlib.Path) -> None:
    """The page promises nothing that is not so."""
    assert found in TESTS, "the row has no test"
    TESTS[found](tmp_path)


def test_the_page_has_each_row_once_and_no_test_is_without_a_row() -> None:
    """A row that is removed or reworded takes its test with it."""
    assert len(rows()) > 40
    assert sorted(TESTS) == sorted(rows())


# Polls.


@row("poll", "no generation id")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    found = work(run.controller)
    assert (found.params, found.meta_params, found.step) == ("p", {"lr": 0}, 5)


@row("poll", "an unknown generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    found = poll(run.controller, 0, "unknown", 3)
    assert found == work(run.controller)
    assert found is not None
    assert found.step == 5


@row("poll", "the slot is on another generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    before = generation(run.controller)
    at = run.report(0, 5, 1.0)
    run.decide({0: Branch(at, {"lr": 9})})
    found = poll(run.controller, 0, before, 7, "dropped")
    assert found == work(run.controller)
    assert found is not None
    assert (found.params, found.meta_params, found.step) == ("p", {"lr": 9}, 5)
    assert 7 not in run.controller.graph[before]


@row("poll", "the slot's generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    before = everything(run.controller)
    assert poll(run.controller, 0, generation(run.controller), 3) is None
    assert everything(run.controller) == before


@row("poll", "the slot is retired")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    assert work(run.controller).wait_at is None
    run.retire(0)
    found = work(run.controller)
    assert (found.step, found.wait_at) == (5, 5)
    assert poll(run.controller, 0, found.generation_id, 5) is None


@row("worker.poll", "its slot waits, or is retired")
def _(folder: pathlib.Path) -> None:
    run = Run(stop=Stop(steps=9))
    with run.controller.worker(0) as worker:
        assert worker.poll()
        worker.step = 3
        worker.report(1.0, "p")
        run.policy.decide({0: Retire("enough")})
        worker.report(1.0)
        assert not worker.poll()
        worker.step = 4
        run.policy.decide({0: Retire("enough")})
        worker.report(1.0, "p")
        assert worker.poll()
        assert (worker.worker_id, worker.step) == (1, 0)
        worker.step = 9
        run.policy.decide({0: Branch(run.newest(), {"lr": 5})})
        worker.report(1.0, "p")  # At its end, it waits.
        assert worker.poll()
        assert (worker.worker_id, worker.step) == (0, 4)


@row("worker.poll", "its slot was branched or set back, and has failed")
def _(folder: pathlib.Path) -> None:
    run = Run()
    with run.controller.worker(0) as worker:
        assert worker.poll()
        worker.step = 5
        worker.report(1.0, "p")
        run.controller.fail(1, "no memory")
        run.controller.fail(0, "no memory")
        assert worker.poll()  # The other one has fewer steps, but has failed as often.
        assert (worker.worker_id, worker.step) == (0, 5)
        run.controller.fail(0, "no memory")
        assert worker.poll()
        assert (worker.worker_id, worker.step) == (1, 0)


@row("worker.poll", "another worker has taken its slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    with run.controller.worker(0) as late, run.controller.worker(0) as worker:
        assert worker.poll()
        assert late.poll()
        assert (worker.worker_id, late.worker_id) == (0, 1)
        assert not worker.poll()


@row("worker.poll", "every slot is at its end or retired")
def _(folder: pathlib.Path) -> None:
    run = Run(stop=Stop(steps=5))
    with run.controller.worker(0) as worker:
        assert worker.poll()
        worker.step = 5
        run.policy.decide({1: Retire("enough")})
        worker.report(1.0, "p")
        assert not worker.running
        assert not worker.poll()
    assert run.controller.finished


# Reports.


@row("report", "a newer step")
def _(folder: pathlib.Path) -> None:
    run = Run()
    found = run.report(0, 5, 1.0)
    assert (found.value, found.params, found.parent) == (
        1.0,
        "p",
        (found.generation_id, 0),
    )
    assert run.policy.shown == [(0, 5)]


@row("report", "the step where the generation begins, or one reported before")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, None)
    assert run.report(0, 5, 2.0, "other")[:1] == ("p",)
    found = run.report(0, 5, 3.0)
    assert (found.value, found.params) == (2.0, "p")
    assert run.policy.shown == [(0, 5), (0, 5)]
    run.report(0, 6, 1.0, None)
    found = run.report(0, 6, None)
    assert found.params == "p"
    assert run.policy.shown[2:] == [(0, 6), (0, 6)]
    run.report(0, 7, None, None)
    run.report(0, 7, None)
    assert run.policy.shown[4:] == [(0, 7)]
    run.decide({0: Branch(found, {"lr": 2})})
    root = run.report(0, 6, 4.0, None)
    assert (root.value, root.params) == (4.0, "p")
    assert run.policy.shown[1:] == [(0, 6)]


@row("report", "metrics that come later than the value")
def _(folder: pathlib.Path) -> None:
    run = Run()
    name = generation(run.controller)
    for step, value in ((5, None), (6, 1.0), (7, 2.0)):
        run.report(0, step, 1.0)
        run.policy.shown.clear()
        run.controller.set_eval(0, name, step, None, value, {"accuracy": step})
        assert run.policy.shown == []
    found = run.controller.graph[name]
    kept = [{"accuracy": 5}, {"accuracy": 6}, None]
    assert [found[step].metrics for step in (5, 6, 7)] == kept
    run.controller.set_eval(0, name, 5, None, None, {"accuracy": 8})
    history = {c.step: c.metrics for c in run.controller.history() if c.step}
    assert history == dict(zip((5, 6, 7), kept, strict=True))
    run.controller.set_eval(0, name, 7, None, None, {"accuracy": 7})
    assert run.controller.newest(0).metrics == {"accuracy": 7}


@row("report", "an older step")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 3, 1.0)
    run.report(0, 2, None)
    assert run.newest().step == 5
    assert run.policy.shown == [(0, 5), (0, 3)]


@row("report", "a superseded generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0)
    run.decide({0: Branch(at, {"lr": 9})})
    before = run.newest()
    run.policy.decide({})
    run.controller.set_eval(0, at.generation_id, 8, "p", 0.5)
    found = run.controller.graph[at.generation_id][8]
    assert (found.value, found.parent) == (0.5, at.ref)
    assert run.newest() == before
    assert run.policy.shown == []


@row("report", "another worker's generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, None)
    run.controller.set_eval(1, at.generation_id, 5, "other", 1.0, {"accuracy": 1})
    found = run.controller.graph[at.generation_id][5]
    assert (found.value, found.metrics, found.params) == (1.0, {"accuracy": 1}, "p")
    run.controller.set_eval(1, at.generation_id, 6, "other", 1.0)
    assert 6 not in run.controller.graph[at.generation_id]


@row("report", "an unknown generation")
def _(folder: pathlib.Path) -> None:
    run = Run()
    before = everything(run.controller)
    run.controller.set_eval(0, "unknown", 5, "p", 1.0)
    assert everything(run.controller) == before


@row("report", "a value that is not finite")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    assert run.report(0, 8, math.nan).diverged
    assert (run.failures(), run.newest().step) == (0, 8)
    best = run.controller.best()
    assert best is not None
    assert best.step == 5


@row("report", "a finite value of a slot that has failed")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    run.controller.fail(0, "broke")
    run.report(0, 8, 1.0)  # It had come that far before.
    assert run.failures() == 1
    run.report(0, 9, math.nan)
    assert run.failures() == 1
    run.report(0, 10, 1.0)
    assert run.failures() == 0
    run.controller.fail(0, "broke")
    run.decide({0: Branch(at, {"lr": 9})})
    run.report(0, 6, 1.0)
    assert run.failures() == 0


@row("report", "the slot is retired")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.retire(0)
    run.report(0, 5, 1.0)
    assert run.newest().step == 5
    assert run.policy.shown == []
    assert run.retired == {0}


@row("report", "the slot was given up")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.controller.give_up(0)
    run.report(0, 5, 1.0)
    assert probe.live(run.controller) == [1]
    run.report(0, 6, 1.0)
    assert probe.live(run.controller) == [0, 1]


# Decisions.


@row("decision", "a `Branch`")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0)
    run.decide({0: Branch(at, {"lr": 9}, "as planned")})
    found = run.newest()
    assert (found.parent, found.params, found.step) == (at.ref, "p", 5)
    assert (found.meta_params, found.reason) == ({"lr": 9}, "as planned")
    assert found.time == run.newest(1).time


@row("decision", "a `Branch` of a slot that diverged")
def _(folder: pathlib.Path) -> None:
    run = Run(max_failures=2)
    at = run.report(0, 5, 1.0)
    for count in (1, 2):
        run.report(0, 8, math.nan)
        name = generation(run.controller)
        run.decide({0: Branch(at, {"lr": 9})})
        assert run.failures() == count
        assert (generation(run.controller) == name) == (count == 2)
    assert run.retired == {0}
    run = Run(policy=Lenient())
    run.report(0, 5, math.nan)
    run.decide({0: Branch(None, {"lr": 9})})
    assert (run.failures(), run.newest().meta_params) == (0, {"lr": 9})


@row("decision", "a `Branch` of a slot that was retired before")
def _(folder: pathlib.Path) -> None:
    run = Run(max_failures=1)
    at = run.report(0, 5, 1.0)
    run.controller.fail(0, "broke")
    assert (run.failures(), run.retired) == (1, {0})
    run.decide({0: Branch(at, {"lr": 9})})
    assert (run.failures(), run.retired) == (0, set())
    assert (run.newest().step, run.newest().meta_params) == (5, {"lr": 9})
    assert probe.live(run.controller) == [0, 1]


@row("decision", "a `Retire`")
def _(folder: pathlib.Path) -> None:
    run = Run(stop=Stop(steps=9))
    run.report(0, 5, 1.0)
    before = run.newest()
    run.retire(0)
    assert run.newest() == before
    assert run.controller.workers[0].wait_at == 5
    assert probe.live(run.controller) == [1]
    assert run.kinds().count("retired") == 1
    run.report(1, 9, 1.0)
    assert run.controller.finished


@row("decision", "a `Retire` of a retired slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.retire(0)
    run.kinds()
    run.decide({0: Retire("again")})
    assert run.retired == {0}
    assert run.kinds() == ["report"]


@row("decision", "slots have left `view.live`")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 6, None)
    run.decide({1: Retire("enough")})
    assert run.policy.shown == [(1, 1), (0, 5)]


@row("decision", "the mutator raises")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    before = everything(run.controller)
    with pytest.raises(ZeroDivisionError):
        run.decide(ZeroDivisionError())
    run.policy.decide(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run.controller.fail(0, "broke")
    assert everything(run.controller) == before
    assert run.failures() == 0


# Failures.


@row("resume", "the slot diverged")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 8, math.nan)
    assert work(run.controller).step == 5
    assert work(run.controller).step == 5
    assert run.failures() == 1
    run.report(0, 8, math.inf)
    with run.controller.worker(0) as worker:
        assert worker.poll()
        assert worker.step == 5
    assert run.failures() == 2
    assert run.policy.shown == [(0, 5), (0, 8), (0, 8)]


@row("fail", "the slot is in training")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    run.policy.decide({})
    run.kinds()
    run.controller.fail(0, "broke")
    assert run.failures() == 1
    assert run.policy.shown == [(0, "broke")]
    found = run.newest()
    assert (found.parent, found.reason) == (at.ref, "failed: broke")
    assert (found.params, found.meta_params) == ("p", {"lr": 0})
    assert run.kinds() == ["failed"]


@row("fail", "the mutator branches the slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0)
    run.policy.decide({0: Branch(at, {"lr": 9}, "away")})
    count = len(run.controller.graph)
    run.controller.fail(0, "broke")
    assert len(run.controller.graph) == count + 1
    assert (run.newest().reason, run.failures()) == ("away", 1)


@row("fail", "it has failed `max_failures` times in a row")
def _(folder: pathlib.Path) -> None:
    run = Run(max_failures=2)
    at = run.report(0, 5, 1.0)
    run.controller.fail(0, "broke")
    name = generation(run.controller)
    run.policy.decide({0: Branch(at, {"lr": 9})})
    run.kinds()
    run.controller.fail(0, "broke again")
    assert (run.retired, run.failures()) == ({0}, 2)
    assert generation(run.controller) == name
    assert run.kinds() == ["failed", "retired"]


@row("fail", "the slot is retired")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.retire(0)
    before = content(run.controller)
    run.controller.fail(0, "broke")
    assert content(run.controller) == before
    assert run.policy.shown == []


@row("fail", "the slot is at its end")
def _(folder: pathlib.Path) -> None:
    run = Run(stop=Stop(steps=5))
    run.report(0, 4, 1.0)
    run.report(0, 5, 1.0, None)
    before = run.newest()
    run.controller.fail(0, "broke")
    assert run.failures() == 1
    assert run.newest() == before
    run.report(1, 5, 1.0)
    assert run.controller.finished


@row("fail", "all slots are retired now, each by a failure")
def _(folder: pathlib.Path) -> None:
    run = Run(max_failures=1)
    run.controller.fail(0, "first")
    with pytest.raises(NoProgressError, match="worker 0: first; worker 1: second"):
        run.controller.fail(1, "second")
    assert run.retired == {0, 1}
    assert run.controller.finished


@row("worker.fail", "the worker holds the slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    with run.controller.worker(0) as worker:
        assert worker.poll()
        worker.fail("broke")
        assert run.failures() == 1
        assert probe.owner(run.controller, 0) is None
        assert worker.poll()
        assert worker.worker_id == 1


@row("worker.fail", "another worker has taken the slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    with run.controller.worker(0) as late, run.controller.worker(0) as worker:
        assert worker.poll()
        before = content(run.controller)
        late.fail("broke")
        assert content(run.controller) == before
        assert not worker.poll()


@row("death of a worker's process", "its parent sees it, and lives")
def _(folder: pathlib.Path) -> None:
    run = Run()
    with run.controller.worker(0) as worker:
        assert worker.poll()
        owner = probe.owner(run.controller, 0)
        probe.saw_die(run.controller, 0, owner)
        assert run.failures() == 1
        assert probe.owner(run.controller, 0) is None
        before = content(run.controller)
        probe.saw_die(run.controller, 0, owner)
        assert content(run.controller) == before


@row("death of a worker's process", "no parent sees it, as when all are killed")
def _(folder: pathlib.Path) -> None:
    run = Run(folder)
    worker: Worker | None = run.controller.worker(0)
    assert worker is not None
    assert worker.poll()
    worker.step = 5
    worker.report(1.0, "p")
    name = worker.generation_id
    worker = None  # Nobody is left to release it.
    gc.collect()
    again = Run(folder)
    with again.controller.worker(0) as worker:
        assert worker.poll()
        assert (worker.step, worker.generation_id) == (5, name)
    assert again.failures() == 0
    again.controller.close()
    run.controller.close()


# The other calls.


@row("give_up", "the slot is live")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(1, 5, 1.0)
    run.policy.decide({})
    run.controller.give_up(0)
    assert probe.live(run.controller) == [1]
    assert run.policy.shown == [(1, 5)]


@row("give_up", "the slot was given up before")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(1, 5, 1.0)
    run.controller.give_up(0)
    run.policy.decide({})
    before = content(run.controller)
    run.controller.give_up(0)
    assert content(run.controller) == before
    assert run.policy.shown == []


@row("revive", "the slot is retired")
def _(folder: pathlib.Path) -> None:
    run = Run(max_failures=1)
    run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    run.controller.fail(0, "broke")
    run.policy.decide({})
    run.controller.revive(0)
    assert (run.retired, run.failures(), run.newest().step) == (set(), 0, 5)
    assert probe.live(run.controller) == [0, 1]
    assert run.policy.shown == []


@row("revive", "another slot")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0)
    run.report(0, 8, 1.0, None)
    before = content(run.controller)
    run.controller.revive(0)
    assert content(run.controller) == before


@row("worker.reject", "params that the worker got as work")
def _(folder: pathlib.Path) -> None:
    run = Run()
    at = run.report(0, 5, 1.0, "good")
    bad = run.report(0, 8, 1.0, "bad")
    run.decide({1: Branch(bad, {"lr": 9})})
    run.kinds()
    with run.controller.worker(0) as worker:
        assert worker.poll()
        worker.reject("unreadable")
        assert worker.poll()
        assert (worker.params, worker.step) == ("good", 5)
    found = run.newest()
    assert (found.parent, found.reason) == (at.ref, "rejected: unreadable")
    assert run.newest(1).params is None
    assert run.failures() == 0
    assert run.kinds().count("damaged") == 1


@row("worker.reject", "params that were rejected before")
def _(folder: pathlib.Path) -> None:
    run = Run()
    run.report(0, 5, 1.0, "good")
    bad = run.report(0, 8, 1.0, "bad")
    run.decide({1: Branch(bad, {"lr": 9})})
    with run.controller.worker(0) as worker, run.controller.worker(1) as other:
        assert worker.poll()
        assert other.poll()
        worker.reject("unreadable")
        other.reject("unreadable")
        assert worker.poll()
        assert other.poll()
        assert (worker.params, other.params) == ("good", "good")
    assert (
        sum('INSERT INTO "removals"' in line for line in content(run.controller)) == 1
    )


def trained(folder: pathlib.Path, *steps: int) -> tuple[Run, list[pathlib.Path]]:
    """A run that has saved arrays, a minute and a half apart, and their files."""
    clock = Clock()
    run = Run(folder, keep=Keep(everything=True), clock=clock)
    for step in steps:
        clock.advance(90.0)
        run.report(0, step, 1.0, {"w": np.full(2, float(step))})
    place = folder / "params" / run.newest().generation_id
    files = [next(place.glob(f"{step}-*")) for step in steps]
    return run, files


@row("loading", "a save of the run's own store is lost")
def _(folder: pathlib.Path) -> None:
    run, files = trained(folder, 5, 8)
    files[1].unlink()
    with run.controller.worker(0) as worker:
        assert worker.poll()
        assert worker.restore(lambda _: {"w": np.zeros(2)})["w"].tolist() == [5.0, 5.0]
        assert worker.step == 5
    assert run.newest().reason.startswith("rejected: lost: ")
    assert run.failures() == 0
    assert run.kinds().count("damaged") == 1
    run.controller.close()


@row("loading", "the store may not be the run's")
def _(folder: pathlib.Path) -> None:
    run, _ = trained(folder, 5, 8)
    shutil.move(folder / "params", folder / "away")
    before = content(run.controller)
    with pytest.raises(LostParamsError, match="missing"):
        run.controller.maybe_get_worker_data(0, None, 0, None, None)
    assert content(run.controller) == before
    run.controller.close()


@row("loading", "an older save of the same lineage is lost too")
def _(folder: pathlib.Path) -> None:
    run, files = trained(folder, 5, 8, 9)
    files[1].unlink()
    files[2].unlink()
    with pytest.raises(ParamsError, match="A newer save"):
        run.controller.maybe_get_worker_data(0, None, 0, None, None)
    before = content(run.controller)
    with pytest.raises(ParamsError, match="A newer save"):
        run.controller.maybe_get_worker_data(0, None, 0, None, None)
    assert content(run.controller) == before
    run.controller.close()


@row("opening", "the journal holds the run")
def _(folder: pathlib.Path) -> None:
    run = Run(folder, max_failures=2)
    run.retire(1)
    run.report(0, 5, 1.0)
    run.controller.fail(0, "broke")
    before = run.controller.workers
    run.controller.close()
    again = Run(folder, max_failures=2)
    assert again.controller.workers == before
    assert (again.failures(), again.retired) == (1, {1})
    assert again.policy.shown == []
    again.controller.close()


@row("opening", "with a larger `stop`")
def _(folder: pathlib.Path) -> None:
    run = Run(folder, stop=Stop(steps=5))
    run.retire(1)
    run.report(0, 5, 1.0)
    assert run.controller.finished
    run.controller.close()
    again = Run(folder, stop=Stop(steps=9))
    assert not again.controller.finished
    with again.controller.worker() as worker:
        assert worker.poll()
        assert (worker.worker_id, worker.step) == (0, 5)
        worker.step = 9
        worker.report(1.0, "p")
        assert not worker.poll()
    assert again.controller.finished
    again.controller.close()
