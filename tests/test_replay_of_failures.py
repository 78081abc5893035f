"""Replay and fork of runs in which members fail, are retired, and come back."""

from __future__ import annotations

import contextlib
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import pytest

import population
from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
)
from population.base import Failure, NoProgressError
from tests import probe
from tests.test_replay import Journey

Decisions = Mapping[int, Branch | Retire]


class Moody(Mutator[list[str]]):
    """Branches and retires any slot at random, and remembers all that it was shown."""

    def init(self, view: PopulationView) -> list[str]:
        """Remember which slots there are."""
        return [f"began with {list(view.live)}"]

    def update(
        self, state: list[str], report: Report, view: PopulationView
    ) -> tuple[list[str], Decisions]:
        """Decide at random, by what was seen of the run."""
        return self._decide(state, repr(report.checkpoint.value), view)

    def failed(
        self, state: list[str], failure: Failure, view: PopulationView
    ) -> tuple[list[str], Decisions]:
        """Decide at random, also about a slot that was just retired."""
        what = failure.reason, failure.failures, failure.retired
        return self._decide(state, repr(what), view)

    def _decide(
        self, state: list[str], shown: str, view: PopulationView
    ) -> tuple[list[str], Decisions]:
        seen = view.live, view.steps.tolist(), view.ready.tolist(), view.now
        state = [*state[-3:], f"{shown} {seen}"]
        rng = view.rng
        decisions: dict[int, Branch | Retire] = {}
        for worker_id in range(len(view.workers)):
            kind = rng.random()
            if kind < 0.08:
                decisions[worker_id] = Retire(f"by {kind}")
            elif kind < 0.2:
                donor = view.newest(int(rng.integers(len(view.workers))))
                found = view.graph.newest_value(donor) or donor
                decisions[worker_id] = Branch(found, {"h": kind, "n": 3})
            elif kind < 0.22:
                decisions[worker_id] = Branch(None, {"h": kind, "n": 3})
        return state, decisions


def decided(controller: PopulationController, after: int = 0) -> int:
    """How many decisions are recorded after a row."""
    sql = (
        "SELECT (SELECT count(*) FROM statuses WHERE kind = 'retired' AND row > ?) + "
        "(SELECT count(*) FROM generations WHERE row > ? AND reason = '')"
    )
    return int(probe.connection(controller).execute(sql, (after, after)).fetchone()[0])


def check_replay(controller: PopulationController, after: int = 0) -> None:
    """The mutator decides the same again, and each decision is compared."""
    found = population.replay(controller, Moody())
    assert found.first_difference is None, str(found)
    recorded = sum(len(decision.recorded) for decision in found.decisions)
    assert recorded == decided(controller, after)


@pytest.mark.parametrize("seed", range(24))
def test_a_replay_agrees_whatever_fails_and_is_retired(
    seed: int, tmp_path: pathlib.Path
) -> None:
    """A policy that depends on all that it was ever shown decides the same again."""
    journey = Journey(tmp_path, Moody, 1 + seed % 4, seed)
    for _ in range(150):
        journey.go()
    assert decided(journey.controller) > 0
    check_replay(journey.controller)
    journey.controller.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24, 300))
def test_a_replay_of_longer_runs_agrees(seed: int, tmp_path: pathlib.Path) -> None:
    """More events, for longer."""
    journey = Journey(tmp_path, Moody, 1 + seed % 6, seed)
    for _ in range(400):
        journey.go()
    check_replay(journey.controller)
    journey.controller.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_fork_goes_on_with_the_same_failures_and_retirements(
    seed: int, tmp_path: pathlib.Path
) -> None:
    """The slots are as they were; the new mutator decides from then on."""
    journey = Journey(tmp_path / "run", Moody, 1 + seed % 4, seed)
    for _ in range(60):
        journey.go()
    old = journey.controller
    new = population.fork(
        old, tmp_path / "new", mutator=Moody(), max_failures=2, clock=journey.clock
    )
    probe.end_nothing(new)
    assert _statuses(new) == _statuses(old)
    assert (probe.retired(new), probe.lost(new)) == (
        probe.retired(old),
        probe.lost(old),
    )
    row = probe.last_row(new)
    journey.continue_with(new)
    for _ in range(60):
        journey.go()
    check_replay(journey.controller, row)
    journey.controller.close()
    old.close()


def _statuses(controller: PopulationController) -> dict[int, tuple[Any, ...]]:
    """All statuses but for the transaction, which is of the old run."""
    found = probe.statuses(controller)
    return {worker_id: status[:-1] for worker_id, status in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_a_fork_from_a_point_has_the_failures_until_then(
    seed: int, tmp_path: pathlib.Path
) -> None:
    """A status that a later transaction recorded at the same row is not copied."""
    journey = Journey(tmp_path / "run", Moody, 3, seed)
    known: dict[int, dict[int, tuple[Any, ...]]] = {}
    for _ in range(80):
        journey.go()
        now = _statuses(journey.controller)
        known.setdefault(probe.last_row(journey.controller), now)
    old = journey.controller
    choose = random.Random(seed)
    for number, row in enumerate(choose.sample(sorted(known)[2:], 3)):
        folder = tmp_path / f"new {number}"
        new = population.fork(old, folder, mutator=Moody(), at=row)
        if probe.last_row(new) == row:
            copied = _statuses(new)
            assert all(known[row][w][1:] == s[1:] for w, s in copied.items())
        check_replay(new, probe.last_row(new))
        with contextlib.suppress(NoProgressError):
            new.fail(0, "it broke in the fork")
        check_replay(new, row)
        new.close()
    old.close()
