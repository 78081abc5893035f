"""Successive halving: the rungs, those that are retired, and weights handed on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import Checkpoint, PopulationController, Start
from population.journal.records import Status
from population.journal.sqlite import SqliteJournal
from population.mutators import SuccessiveHalving
from population.testing import check_mutator, simulate
from population.testing import inside as access


class Race:
    """A run of raw loops that report what a test says.

    Args:
        mutator: The policy.
        population: The meta_params of each worker.
        options: Further arguments of the controller.
    """

    def __init__(
        self, mutator: SuccessiveHalving, population: list[Any], **options: Any
    ) -> None:
        self.journal = SqliteJournal()
        self.controller = PopulationController(
            population, mutator, journal=self.journal, **options
        )

    def newest(self, worker_id: int) -> Checkpoint:
        """The checkpoint from which a slot continues."""
        return access.newest(self.controller, worker_id)

    def report(
        self, worker_id: int, step: int, value: float | None, *, saved: bool = True
    ) -> None:
        """Report a step of the slot's present generation."""
        name = self.newest(worker_id).generation_id
        params = f"worker {worker_id} at {step}" if saved else None
        self.controller.set_eval(worker_id, name, step, params, value)

    @property
    def retired(self) -> list[int]:
        """The retired slots."""
        return sorted(access.retired(self.controller))

    @property
    def reasons(self) -> list[str]:
        """Why slots were retired by decisions, in order."""
        recorded = self.journal.all(Status)
        return [status.reason for status in recorded if status.kind == "retired"]

    @property
    def state(self) -> dict[str, Any]:
        """The mutator's state, as the journal keeps it."""
        text = access.mutator_state(self.journal)
        found: dict[str, Any] = json.loads(text)["!data"]
        return found

    def branches(self, worker_id: int) -> list[Checkpoint]:
        """The first checkpoint of each generation that a decision opened."""
        graph = self.controller.graph
        roots = [graph.root(name) for name in graph]
        return [c for c in roots if c.worker_id == worker_id and c.parent is not None]


def retiring(size: int = 4, factor: int = 2, **options: Any) -> Race:
    """A run whose losers are retired, with rungs at 10, 20, 40, ... steps."""
    return Race(SuccessiveHalving(None, 10, factor), [0.0] * size, **options)


def handing_on(size: int = 4, factor: int = 2, **options: Any) -> Race:
    """A run in which losers continue from the weights of others."""
    metas = [10.0 * worker_id for worker_id in range(size)]
    return Race(SuccessiveHalving(lambda h: h + 1, 10, factor), metas, **options)


def test_who_is_not_among_the_best_half_so_far_is_retired() -> None:
    """It is compared with those before it; the reason has rung, rank and score."""
    race = retiring()
    for worker_id, value in ((3, 4.0), (1, 3.0), (2, 5.0), (0, 2.0)):
        race.report(worker_id, 5, -value)  # Before the rung a value means nothing.
        race.report(worker_id, 10, value)
    assert race.retired == [2]
    assert race.reasons == ["lost at rung 0, step 10: rank 3 of 3, score 5"]
    race.report(3, 19, 100.0)
    assert race.retired == [2]
    race.report(3, 20, 100.0)
    race.report(1, 20, 101.0)
    assert race.retired == [1, 2]
    assert race.reasons[1] == "lost at rung 1, step 20: rank 2 of 2, score 101"


def test_in_mode_max_more_is_better() -> None:
    """The score is the negated value."""
    race = retiring(mode="max")
    race.report(0, 10, 4.0)
    race.report(1, 10, 3.0)
    assert race.retired == [1]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_share_of_the_best_goes_on(factor: int) -> None:
    """With values that only improve all go on; with ones that get worse, the first."""
    falling, rising = retiring(12, factor), retiring(12, factor)
    for worker_id in range(12):
        falling.report(worker_id, 10, -float(worker_id))
        rising.report(worker_id, 10, float(worker_id))
    assert falling.retired == []
    # The k-th is the worst of k, so it goes on only as the first.
    assert rising.retired == list(range(1, 12))


def test_the_rank_is_checked_against_all_that_were_recorded() -> None:
    """In any order of arrival, each is compared with exactly those before it."""
    rng = np.random.default_rng(0)
    for factor in (2, 3, 4):
        values = rng.permutation(200).astype(float).tolist()
        race = retiring(201, factor)  # One never reports.
        for worker_id, value in enumerate(values):
            race.report(worker_id, 10, value)
        lost = []
        for worker_id, value in enumerate(values):
            so_far = sorted(values[: worker_id + 1])
            if value > so_far[max(len(so_far) // factor, 1) - 1]:
                lost.append(worker_id)
        assert race.retired == lost
        kept = race.state["rungs"]["!dict"][0][1]["!data"]
        assert kept["count"] == 200
        assert len(kept["scores"]) == max(201 // factor, 64)


def test_a_score_as_good_as_the_last_of_the_best_goes_on() -> None:
    """Equal scores, such as an accuracy of chance, retire nobody."""
    race = retiring(8, 4)
    for worker_id in range(8):
        race.report(worker_id, 10, 0.5)
    assert race.retired == []


def test_several_rungs_may_lie_between_two_reports() -> None:
    """The report counts at each of them; a member loses at the first that it fails."""
    race = retiring()
    race.report(0, 45, 3.0)  # Rungs 10, 20 and 40.
    race.report(1, 10, 2.0)
    race.report(2, 25, 2.5)  # It is the second of two at rung 10.
    race.report(1, 40, 4.0)
    assert race.retired == [1, 2]
    assert [reason[:15] for reason in race.reasons] == [
        "lost at rung 0,",
        "lost at rung 1,",
    ]
    race.report(0, 79, 9.0)
    race.report(0, 80, 9.0)
    assert race.retired == [1, 2]


def test_a_late_value_decides_late_and_once() -> None:
    """Neither a repeated report nor a value of a step before changes that."""
    race = retiring()
    race.report(0, 10, 1.0)
    race.report(1, 10, None)
    race.report(1, 12, None)
    assert race.retired == []
    race.report(1, 12, 0.5)
    before = race.state
    assert before["rungs"]["!dict"][0][1]["!data"]["count"] == 2
    race.report(1, 12, 0.5)
    race.report(1, 10, 7.0)
    race.controller.give_up(3)  # Shows the mutator a known report again.
    assert race.state == before
    assert race.retired == []


def test_a_slot_that_begins_after_a_rung_is_not_compared_there() -> None:
    """With trained weights it begins between two rungs."""
    race = Race(SuccessiveHalving(None, 10, 2), [Start(0.0, "p", 10), 0.0])
    race.report(1, 10, 1.0)
    race.report(0, 15, 9.0)
    assert race.retired == []
    race.report(1, 20, 1.0)
    race.report(0, 20, 9.0)
    assert race.retired == [0]


def test_who_diverges_loses_at_once() -> None:
    """It does not train on to the next rung; this is a retirement, not a failure."""
    race = retiring()
    race.report(1, 3, math.nan, saved=False)
    assert race.retired == [1]
    assert race.reasons == ["lost at rung 0, step 10: rank 1 of 1, score inf"]
    race.report(0, 10, math.inf)
    race.report(2, 10, 1.0)
    assert race.retired == [0, 1]


def test_a_retired_slot_that_is_revived_goes_on_to_the_next_rung() -> None:
    """It lost at one rung, and is not compared there again."""
    race = retiring()
    race.report(0, 10, 1.0)
    race.report(1, 10, 2.0)
    assert race.retired == [1]
    race.controller.revive(1)
    race.report(1, 15, 9.0)
    assert race.retired == []
    race.report(0, 20, 1.0)
    race.report(1, 20, 9.0)
    assert race.retired == [1]


def test_who_loses_continues_from_one_of_the_best_with_changed_meta_params() -> None:
    """The weights are the newest of that one; nobody is retired."""
    race = handing_on()
    race.report(0, 10, 1.0)
    race.report(0, 14, 1.0)
    race.report(1, 10, 2.0)
    [root] = race.branches(1)
    assert (root.step, root.params, root.meta_params) == (14, "worker 0 at 14", 1.0)
    assert root.reason.endswith("rank 2 of 2, score 2; continues worker 0")
    assert race.retired == []
    race.report(1, 19, 9.0)  # It is past rung 10, and goes on to the next one.
    assert len(race.branches(1)) == 1
    race.report(0, 20, 3.0)
    race.report(1, 20, 9.0)
    assert len(race.branches(1)) == 2


def test_weights_come_only_from_the_best_that_are_live_and_finite() -> None:
    """A better one that has been given up, or has diverged since, is no donor."""
    race = handing_on(6, 2)
    for worker_id, value in ((0, 1.0), (1, 0.5), (2, 0.4), (3, 0.3)):
        race.report(worker_id, 10, value)
    race.controller.give_up(3)
    race.report(4, 10, 7.0)  # The best two of five are 2 and 3.
    assert race.branches(4)[0].params == "worker 2 at 10"
    race.controller.give_up(2)
    race.report(5, 10, 8.0)  # The best three of six are 1, 2 and 3.
    assert race.branches(5)[0].params == "worker 1 at 10"


def test_donors_are_drawn_from_the_seed() -> None:
    """Each of the best is drawn sometimes, none of the others."""
    drawn = set()
    for seed in range(30):
        race = handing_on(6, 2, seed=seed)
        for worker_id, value in enumerate((3.0, 2.0, 1.0, 0.5, 0.4)):
            race.report(worker_id, 10, value)
        race.report(5, 10, 9.0)
        drawn.add(race.branches(5)[0].params)
    assert drawn == {f"worker {worker_id} at 10" for worker_id in (2, 3, 4)}


def test_without_a_donor_it_goes_on_and_if_it_diverged_it_goes_back() -> None:
    """The first at a rung cannot get weights from anyone."""
    race = handing_on(3)
    race.report(0, 4, 5.0)
    race.report(0, 7, math.nan)
    [root] = race.branches(0)
    assert (root.step, root.meta_params) == (4, 1.0)
    assert root.reason == "went back, having diverged"
    race.report(1, 10, 1.0)
    race.controller.give_up(1)
    race.report(2, 10, 2.0)
    assert race.branches(2) == []
    assert race.retired == []


def test_a_late_report_brings_no_retired_slot_back() -> None:
    """Only a failure retires slots where weights are handed on."""
    race = handing_on(2, 2, max_failures=1)
    race.report(0, 10, 1.0)
    race.report(1, 10, None)
    name = race.newest(1).generation_id
    race.controller.fail(1, "out of memory")
    race.controller.set_eval(1, name, 10, None, 9.0)
    assert race.retired == [1]
    race.controller.revive(1)
    race.report(1, 11, 9.0)
    assert race.branches(1)[-1].params == "worker 0 at 10"


def test_a_rung_that_all_have_passed_is_forgotten() -> None:
    """So the state is small, however long a run is."""
    race = handing_on(4)
    sizes = []
    for rung in range(12):
        for worker_id in range(4):
            race.report(worker_id, 10 * 2**rung, float(worker_id))
        assert len(race.state["rungs"]["!dict"]) <= 1 if race.state["rungs"] else True
        sizes.append(len(json.dumps(race.state)))
    assert max(sizes[6:]) <= max(sizes[:6]) + 20


def test_one_worker_alone_passes_every_rung() -> None:
    """Nobody is better."""
    for race in (retiring(1), handing_on(1)):
        for step in range(1, 100):
            race.report(0, step, float(step))
        assert race.retired == []
        assert race.branches(0) == []


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("mutates", [False, True])
def test_it_keeps_the_promises_at_any_size(size: int, mutates: bool) -> None:
    """Alone it retires nobody, except when it diverges."""

    def make(mutate_fn: Callable[..., Any]) -> SuccessiveHalving:
        return SuccessiveHalving(mutate_fn if mutates else None, 3, 3)

    check_mutator(make, size=size)


def test_most_of_the_work_is_saved() -> None:
    """Of 16 learning rates one goes on to the end; it is better than most."""
    grid = [{"learning_rate": 10 ** (-k / 5)} for k in range(16)]
    everything = simulate(SuccessiveHalving(None, 10**6), grid, steps=320)
    halved = simulate(SuccessiveHalving(None, 20, 2), grid, steps=320)
    handed = simulate(SuccessiveHalving(_lower, 20, 2), grid, steps=320)
    counts = [
        sum(c.value is not None for c in run.history()) for run in (halved, everything)
    ]
    assert counts[0] < counts[1] / 2
    assert len(access.live(halved)) < 8
    assert len(access.live(handed)) == 16
    assert _best(handed) < _best(halved)
    last = sorted(everything.newest(w).value or math.inf for w in range(16))
    assert _best(halved) < last[8]


def _best(run: PopulationController) -> float:
    best = run.best()
    assert best is not None
    assert best.value is not None
    return best.value


def _lower(meta: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    return {"learning_rate": meta["learning_rate"] * float(rng.uniform(0.4, 1.1))}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, 0), ValueError, "first_rung must be a positive int, got 0"),
        ((None, 2.0), ValueError, "first_rung must be a positive int, got 2.0"),
        ((None, 2, 1), ValueError, "factor must be an int of 2 or more, got 1"),
        ((None, 2, 2.5), ValueError, "factor must be an int of 2 or more, got 2.5"),
        ((None, 2, True), ValueError, "factor must be an int of 2 or more"),
        (("f", 2), TypeError, "mutate_fn must be a function of meta_params"),
    ],
)
def test_bad_arguments_are_named(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    """They are refused when the policy is made."""
    with pytest.raises(error, match=message):
        SuccessiveHalving(*arguments)
