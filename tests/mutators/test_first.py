"""`Mutator.first`: the hyperparameters with which a slot begins, and begins again."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import population
from population import Branch, PopulationController, RunMismatchError, Start
from population.base.errors import is_failure
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.space import Uniform
from tests.helpers import Scripted, generation, work
from tests.mutators.helpers import Run, halve

ENTRIES = {0: "a", 3: "b", 6: "c"}


def first_metas(controller: PopulationController) -> list[Any]:
    """The meta_params with which each slot's first generation began."""
    graph = controller.graph
    roots = [graph.root(generation_id) for generation_id in graph]
    return [c.meta_params for c in roots if c.generation_id.endswith("-0")]


class Shifted(Scripted):
    """Begins each slot with its meta_params and the step."""

    def __init__(self, decide: Any = None) -> None:
        super().__init__(decide)
        self.calls: list[tuple[int, int, Any]] = []

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Note the call."""
        self.calls.append((worker_id, step, meta_params))
        return f"{meta_params}@{step}"


def test_by_default_a_slot_begins_with_what_it_was_given() -> None:
    """No call, and nothing is converted."""
    policy = PopulationBasedTraining(halve, 2)
    assert policy.first(3, 7, {"h": 1}) == {"h": 1}
    with Run(lambda: policy, [1.0, Start(2.0, "weights", 5)]) as run:
        assert run.metas() == [1.0, 2.0]


def test_a_run_begins_with_what_the_policy_says_and_records_it(
    tmp_path: pathlib.Path,
) -> None:
    """Each slot by its own step; what was passed is recorded nowhere."""
    starts = ["x", Start("x", step=4), Start("x", "weights", 9)]
    controller = PopulationController(starts, FixedSchedule(ENTRIES), tmp_path)
    assert [w.meta_params for w in controller.workers] == ["a", "b", "c"]
    assert first_metas(controller) == ["a", "b", "c"]
    assert controller.schedule(controller.newest(2)) == {9: "c"}
    controller.close()


def test_before_the_first_entry_a_slot_keeps_its_own() -> None:
    """A schedule that begins later changes nothing until then."""
    with Run(lambda: FixedSchedule({4: "late"}), ["own", Start("own", step=4)]) as run:
        assert run.metas() == ["own", "late"]


def test_a_function_may_give_nothing_for_the_first_step() -> None:
    """None means no change, at the start as later."""
    entries: dict[int, Any] = {2: "here"}
    with Run(lambda: FixedSchedule(entries.get), ["own", Start("own", step=2)]) as run:
        assert run.metas() == ["own", "here"]


def test_to_open_a_run_again_changes_nothing(tmp_path: pathlib.Path) -> None:
    """`first` is not asked for a run that exists."""
    policy = Shifted()
    PopulationController(["x", "y"], policy, tmp_path).close()
    assert policy.calls == [(0, 0, "x"), (1, 0, "y")]
    again = Shifted()
    controller = PopulationController(["x", "y"], again, tmp_path)
    assert again.calls == []
    assert first_metas(controller) == ["x@0", "y@0"]
    assert [w.meta_params for w in controller.workers] == ["x@0", "y@0"]
    controller.close()


def test_a_run_whose_first_entry_has_other_keys_opens_again(
    tmp_path: pathlib.Path,
) -> None:
    """The same arguments are accepted again; those of neither are refused."""
    policy = FixedSchedule({0: {"b": 1.0}})
    for _ in range(2):
        controller = PopulationController([{"a": 1.0}], policy, tmp_path)
        assert controller.workers[0].meta_params == {"b": 1.0}
        controller.close()
    late = FixedSchedule({0: {"c": 1.0}})
    with pytest.raises(RunMismatchError, match=r"initial_population\[0\]"):
        PopulationController([{"a": 1.0}], late, tmp_path)


def test_a_slot_that_goes_back_gets_the_entry_of_that_step() -> None:
    """Its last entry is of a later step, and would be in force too early."""
    with Run(lambda: FixedSchedule(ENTRIES), ["x"]) as run:
        run.report(0, 2, 1.0, "at 2")
        run.report(0, 6, 1.0, "at 6")
        assert run.metas() == ["c"]
        with run.controller.worker(0) as worker:
            worker.poll()
            worker.reject("damaged")
            assert worker.poll()
            assert (worker.step, worker.meta_params) == (2, "a")
            worker.step = 4
            worker.report(1.0, "at 4")
            assert worker.poll()
            assert (worker.step, worker.meta_params) == (4, "b")


def test_fresh_weights_get_the_entry_of_step_0() -> None:
    """A slot that falls back to its root begins anew."""
    with Run(lambda: FixedSchedule(ENTRIES), ["x"]) as run:
        run.report(0, 4, 1.0, "at 4")
        assert run.metas() == ["b"]
        with run.controller.worker(0) as worker:
            worker.poll()
            worker.reject("damaged")
            assert worker.poll()
            assert (worker.step, worker.params) == (0, None)
            assert worker.meta_params == "a"


def test_a_failure_leaves_the_schedule_in_force() -> None:
    """The slot goes on from its save, with the entry of that step."""
    with Run(lambda: FixedSchedule(ENTRIES), ["x"]) as run:
        run.report(0, 3, 1.0, "at 3")
        run.controller.fail(0, "on purpose")
        work = run.work(0)
        assert (work.step, work.meta_params, work.params) == (3, "b", "at 3")


def test_another_policy_keeps_what_it_has_given() -> None:
    """A slot that goes back before a decision keeps the hyperparameters of that."""

    def at_4(report: population.Report, view: Any) -> Mapping[int, Branch]:
        checkpoint = report.checkpoint
        return {0: Branch(checkpoint, "new")} if checkpoint.step == 4 else {}

    with Run(lambda: Scripted(at_4), ["own"]) as run:
        run.report(0, 2, 1.0, "at 2")
        run.report(0, 4, 1.0, "at 4")
        with run.controller.worker(0) as worker:
            worker.poll()
            worker.reject("damaged")
            assert worker.poll()
            assert (worker.step, worker.meta_params) == (2, "new")


def test_a_policy_is_asked_with_what_the_slot_has() -> None:
    """Also in a takeover, which opens a generation at the newest save."""
    policy = Shifted()
    with Run(lambda: policy, ["x"]) as run:
        run.report(0, 5, 1.0, "at 5")
        one = run.controller.worker(0)
        one.poll()
        two = run.controller.worker(0)
        assert two.poll()
        assert (two.step, two.meta_params) == (5, "x@0@5")
        assert policy.calls == [(0, 0, "x"), (0, 5, "x@0")]
        two.release()
        one.release()


def test_an_equal_answer_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Another order of keys is no other hyperparameter: a fork opens nothing."""
    with Run(lambda: Scripted(), [{"a": 1.0, "b": 2.0}], tmp_path / "run") as run:
        run.report(0, 1, 1.0, "at 1")
    policy = FixedSchedule({0: {"b": 2.0, "a": 1.0}})
    fork = population.fork(tmp_path / "run", tmp_path / "new", mutator=policy)
    assert [*fork.graph] == [generation(fork)]
    fork.close()


def test_a_first_entry_outside_the_space_is_refused_by_name() -> None:
    """The message names the policy, not what the caller passed for the slot."""
    space = {"h": Uniform(0.0, 1.0)}
    policy = FixedSchedule({0: {"h": 7.0}})
    with pytest.raises(ValueError, match=r"FixedSchedule\.first gives worker 0 is not"):
        PopulationController([{"h": 0.5}], policy, space=space)
    late = FixedSchedule({0: {"h": 0.25}})
    controller = PopulationController([{"h": 7.0}], late, space=space)
    assert controller.workers[0].meta_params == {"h": 0.25}


@pytest.mark.parametrize("space", [None, {"h": Uniform(0.0, 1.0)}])
def test_a_fork_begins_with_the_entry_of_its_step(
    tmp_path: pathlib.Path, space: Any
) -> None:
    """Each slot at its own step; with a space, too, whatever that has drawn."""
    with Run(lambda: Scripted(), [{"h": 0.5, "old": 1}] * 2, tmp_path / "run") as run:
        run.report(0, 2, 1.0, "at 2")
        run.report(1, 6, 1.0, "at 6")
    entries = {0: {"h": 0.25}, 5: {"h": 0.125}}
    if space is None:
        entries = {step: {**entry, "old": 1} for step, entry in entries.items()}
    place = tmp_path / "run", tmp_path / "new"
    fork = population.fork(*place, mutator=FixedSchedule(entries), space=space)
    found = [work(fork, worker_id) for worker_id in range(2)]
    assert [w.step for w in found] == [2, 6]
    assert [w.params for w in found] == ["at 2", "at 6"]
    assert [w.meta_params for w in found] == [*entries.values()]
    fork.close()
    again = PopulationController(
        [None] * 2, FixedSchedule(entries), tmp_path / "new", space=space
    )
    assert [w.meta_params for w in again.workers] == [*entries.values()]
    again.close()


def test_a_fork_before_the_first_entry_keeps_its_own(tmp_path: pathlib.Path) -> None:
    """The hyperparameters are those of the run, until the schedule begins."""
    with Run(lambda: Scripted(), ["own"], tmp_path / "run") as run:
        run.report(0, 2, 1.0, "at 2")
    policy = FixedSchedule({4: "late"})
    fork = population.fork(tmp_path / "run", tmp_path / "new", mutator=policy)
    assert work(fork).meta_params == "own"
    found = work(fork)
    fork.set_eval(0, found.generation_id, 4, "at 4", 1.0)
    assert work(fork).meta_params == "late"
    fork.close()


def test_a_stacked_engine_refuses_an_entry_that_it_cannot_train() -> None:
    """Its check sees what a slot gets when it goes back, too; nothing is recorded."""

    def check(meta_params: Any, worker_id: int) -> None:
        if meta_params == "a":
            raise ValueError(f"worker {worker_id} cannot train {meta_params!r}")

    with Run(lambda: FixedSchedule(ENTRIES), ["x"]) as run:
        run.report(0, 1, 1.0, {"w": np.ones(2)})
        lease = run.controller.claim_all()
        name = generation(run.controller)
        lease.report([lease.encode(0, name, 4, population.base.InMemory(), 1.0)])
        held = run.controller.workers[0]
        assert held.meta_params == "b"
        with lease.refusing(check):
            lease.report([], gone=[held.params])
            with pytest.raises(ValueError, match="worker 0 cannot train 'a'"):
                lease.resume([0])
        assert run.newest(0).step == 4


@pytest.mark.parametrize("kind", [ValueError, TypeError, ZeroDivisionError])
def test_an_exception_of_first_is_of_the_run_not_of_a_trial(
    kind: type[Exception],
) -> None:
    """A worker under `on_error="fail"` must not count it as its own failure."""

    class Broken(Scripted):
        def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
            if step:
                raise kind("on purpose")
            return meta_params

    with Run(Broken, ["x"]) as run:
        run.report(0, 5, 1.0, "at 5")
        run.controller.worker(0).poll()
        with pytest.raises(kind, match="on purpose") as caught:
            run.controller.fail(0, "a reason")
        assert not is_failure(caught.value)
        assert run.newest(0).step == 5


def test_what_cannot_be_stored_is_refused_by_name() -> None:
    """The message names the worker."""
    policy = FixedSchedule(lambda step: object())
    with pytest.raises(TypeError, match="first meta_params for worker 0"):
        PopulationController(["x"], policy)
