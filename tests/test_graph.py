"""The graph of checkpoints: a forest of which each part can be read alone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from population import (
    Branch,
    JournalError,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Start,
)
from tests import probe
from tests.helpers import (
    Scripted,
    assert_is_a_forest,
    branch_at,
    generation,
    poll,
    random_branch,
)

REPORTS = ((5, "at 5", 3.0), (10, "at 10", 1.0), (15, "at 15", 2.0))


def branched(back_to: int | None = None) -> PopulationController:
    """One worker that reported at 5, 10, 15, and was branched at 15."""
    decide = branch_at(15, {"lr": 2}, back_to=back_to)
    controller = PopulationController([{"lr": 1}], Scripted(decide))
    first = generation(controller)
    for step, params, value in REPORTS:
        controller.set_eval(0, first, step, params, value)
    return controller


def wild_run(seed: int) -> PopulationController:
    """Reports in random order, by the right worker and others, some without values."""
    choose = random.Random(seed)
    starts = [Start({"lr": 0}, params="trained", step=7), {"lr": 1}, {"lr": 2}]
    controller = PopulationController(starts, random_branch(choose))
    for count in range(60):
        generation_id = choose.choice(list(controller.graph))
        root = controller.graph.root(generation_id)
        step = root.step + choose.randrange(12)
        params = choose.choice([None, f"p{count}"])
        value = choose.choice([None, math.nan, math.inf, choose.random()])
        worker_id = choose.choice([root.worker_id, choose.randrange(3)])
        controller.set_eval(worker_id, generation_id, step, params, value)
        if choose.random() < 0.2:
            poll(controller, choose.randrange(3))
    return controller


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_reported_the_graph_is_a_forest(seed: int) -> None:
    """Every parent exists, came earlier, and has no greater step."""
    controller = wild_run(seed)
    assert_is_a_forest(controller.graph)
    controller.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_recorded_parent_never_changes(seed: int) -> None:
    """The history up to a row is always what it was when the row came."""
    choose = random.Random(seed)
    controller = PopulationController([{"lr": 0}] * 2, random_branch(choose))
    parents: dict[Ref, Ref | None] = {}
    for _ in range(30):
        generation_id = choose.choice(list(controller.graph))
        step = controller.graph.root(generation_id).step + choose.randrange(9)
        worker_id = controller.graph.root(generation_id).worker_id
        controller.set_eval(worker_id, generation_id, step, "p", choose.random())
        for checkpoint in controller.history():
            before = parents.setdefault(checkpoint.ref, checkpoint.parent)
            assert checkpoint.parent == before


@pytest.mark.parametrize("seed", range(4))
def test_every_lineage_begins_at_a_root_and_ascends(seed: int) -> None:
    """A lineage has ascending steps and ends with the checkpoint itself."""
    controller = wild_run(seed)
    for checkpoint in list(controller.history()):
        lineage = controller.lineage(checkpoint)
        assert lineage[0].parent is None
        assert lineage[-1].ref == checkpoint.ref
        steps = [c.step for c in lineage]
        assert steps == sorted(steps)
        assert len({c.ref for c in lineage}) == len(lineage)


@pytest.mark.parametrize("seed", range(4))
def test_where_training_resumes_is_on_the_lineage_and_did_not_diverge(
    seed: int,
) -> None:
    """A resume point has params, or is a root; no nearer checkpoint qualifies."""
    controller = wild_run(seed)
    for checkpoint in list(controller.history()):
        point = controller.graph.resume_point(checkpoint)
        lineage = {c.ref: c for c in controller.lineage(checkpoint)}
        assert point.ref in lineage
        fits = point.params is not None and not point.diverged
        fresh = point.params is None and point.step == min(
            c.step for c in lineage.values()
        )
        assert fits or point.parent is None or fresh
        for nearer in list(lineage.values())[::-1]:
            if nearer.ref == point.ref:
                break
            unsure = checkpoint.diverged and nearer.value is None
            assert nearer.diverged or nearer.params is None or unsure


def test_from_what_diverged_one_goes_back_to_a_finite_value() -> None:
    """Weights that were saved without an evaluation before a NaN may be as bad."""
    controller = PopulationController([{"lr": 1}], Scripted())
    at = generation(controller)
    for step, value in ((1, 1.0), (2, None), (3, math.nan), (4, None)):
        controller.set_eval(0, at, step, f"weights {step}", value)
    graph = controller.graph
    found = [graph.resume_point(graph[at][step]).step for step in (1, 2, 3, 4)]
    assert found == [1, 2, 1, 4]


def test_the_lineage_passes_through_the_branch() -> None:
    """The donor's checkpoints after the branch do not belong to it."""
    controller = branched(back_to=10)
    newest = probe.newest(controller)[0]
    assert [c.step for c in controller.lineage(newest)] == [0, 5, 10, 10]
    assert newest.parent is not None
    assert newest.parent.step == 10


def test_the_schedule_tells_what_was_in_force_from_which_step() -> None:
    """There is no entry where nothing changed."""
    controller = branched(back_to=10)
    newest = probe.newest(controller)[0]
    assert dict(controller.schedule(newest)) == {0: {"lr": 1}, 10: {"lr": 2}}
    first = controller.lineage(newest)[1]
    assert dict(controller.schedule(first)) == {0: {"lr": 1}}


def test_the_last_of_several_changes_at_one_step_is_what_was_trained_with() -> None:
    """A generation that was replaced before it trained is not in the schedule."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 4:
            return {}
        tried = len(view.graph)
        return {0: Branch(view.newest(0), {"lr": 1 if tried == 2 else 10 * tried})}

    controller = PopulationController([{"lr": 1}], Scripted(decide))
    for value in (1.0, 2.0):
        controller.set_eval(0, generation(controller), 4, "p", value)
    schedule = controller.schedule(probe.newest(controller)[0])
    assert dict(schedule) == {0: {"lr": 1}, 4: {"lr": 1}}
    assert [schedule.at(step) for step in (0, 3, 4)] == [{"lr": 1}] * 3


def test_a_diverged_checkpoint_is_not_resumed_from() -> None:
    """NaN and infinities are skipped up to the nearest finite value."""
    controller = PopulationController([{}], Scripted())
    first = generation(controller)
    values = [(1, 1.0), (2, math.nan), (3, math.inf), (4, -math.inf)]
    for step, value in values:
        controller.set_eval(0, first, step, f"p{step}", value)
    point = controller.graph.resume_point(probe.newest(controller)[0])
    assert (point.step, point.params) == (1, "p1")


def test_what_was_not_saved_is_not_resumed_from() -> None:
    """Once params are saved, a value without params is not a resume point."""
    controller = PopulationController([{}], Scripted())
    first = generation(controller)
    controller.set_eval(0, first, 1, "p1", 5.0)
    controller.set_eval(0, first, 2, None, 1.0)
    assert controller.graph.resume_point(probe.newest(controller)[0]).step == 1


def test_what_has_no_value_yet_is_resumed_from() -> None:
    """Params count, whether or not they were evaluated."""
    controller = PopulationController([{}], Scripted())
    controller.set_eval(0, generation(controller), 2, "p2", None)
    assert controller.graph.resume_point(probe.newest(controller)[0]).step == 2


def test_a_root_always_qualifies() -> None:
    """If a whole lineage diverged, its root is left, diverged or not."""
    start = Start({}, params="bad", step=3)
    controller = PopulationController([start], Scripted())
    first = generation(controller)
    controller.set_eval(0, first, 3, None, math.nan)
    controller.set_eval(0, first, 4, "worse", math.nan)
    point = controller.graph.resume_point(probe.newest(controller)[0])
    assert (point.step, point.params, point.diverged) == (3, "bad", True)


def test_loops_that_keep_their_weights_resume_without_params() -> None:
    """A raw run that never saved anything resumes from its newest finite report."""
    controller = PopulationController([{}], Scripted())
    first = generation(controller)
    for step, value in ((1, 1.0), (2, 2.0), (3, math.nan)):
        controller.set_eval(0, first, step, None, value)
    assert controller.graph.resume_point(probe.newest(controller)[0]).step == 2


def test_after_a_claim_the_weights_are_the_librarys_business() -> None:
    """A worker that never saved begins again; its report is not a resume point."""
    controller = PopulationController([{}], Scripted())
    controller.worker(0).release()
    controller.set_eval(0, generation(controller), 5, None, 1.0)
    assert controller.graph.resume_point(probe.newest(controller)[0]).step == 0


def test_a_start_with_params_makes_them_the_librarys_business() -> None:
    """Trained weights of one slot count for all slots."""
    controller = PopulationController([{}, Start({}, params="w")], Scripted())
    controller.set_eval(0, generation(controller), 5, None, 1.0)
    assert controller.graph.resume_point(probe.newest(controller)[0]).step == 0


def test_a_branchs_first_checkpoint_copies_its_donors_params_and_is_no_root() -> None:
    """It has no value: the donor has it."""
    controller = branched(back_to=10)
    newest = probe.newest(controller)[0]
    assert (newest.params, newest.value, newest.step) == ("at 10", None, 10)
    assert newest.meta_params == {"lr": 2}
    assert newest.reason == "as planned"


@pytest.mark.parametrize(
    ("start", "own", "back_at"), [("w", None, 1), (None, None, 1), (None, "bad", 0)]
)
def test_back_at_the_start_only_copied_params_are_as_good_as_the_starts(
    start: str | None, own: str | None, back_at: int
) -> None:
    """Params that a worker reported there may have diverged, too."""
    decide = branch_at(2, {"lr": 2}, back_to=0)
    controller = PopulationController([Start({}, params=start)], Scripted(decide))
    controller.set_eval(0, generation(controller), 2, "diverged", math.nan)
    second = generation(controller)
    if own is not None:
        controller.set_eval(0, second, 0, own, None)
    controller.set_eval(0, second, 1, "worse", math.nan)
    point = controller.graph.resume_point(probe.newest(controller)[0])
    assert point.generation_id == list(controller.graph)[back_at]
    assert point.params == start


def test_a_generation_that_the_journal_hides_is_damage() -> None:
    """A damaged index loses a row; a generation that never was is a KeyError."""
    controller = branched(back_to=10)
    graph, first = controller.graph, next(iter(controller.graph))
    run, *_ = first.rpartition("-0-0")
    probe.journal(controller).raw.execute("DELETE FROM checkpoints")
    for hidden in (f"{run}-0-0", f"{run}-0-1"):
        with pytest.raises(JournalError, match=f"does not find {hidden}"):
            graph.root(hidden)
    for never in (f"{run}-0-2", f"{run}-1-0", f"{run}-0-x", "x-0-0", "", f"{run}-0"):
        with pytest.raises(KeyError):
            graph.root(never)
        with pytest.raises(KeyError):
            graph[never]


def test_a_parent_that_the_journal_hides_is_damage() -> None:
    """Every parent exists, so it is no KeyError either."""
    graph = (controller := branched(back_to=10)).graph
    copy = probe.newest(controller)[0]
    parent = graph.parent(copy)
    assert parent is not None
    assert parent.params == "at 10"
    assert graph.parent(graph.root(parent.generation_id)) is None
    probe.journal(controller).raw.execute("DELETE FROM checkpoints WHERE step = 10")
    with pytest.raises(JournalError, match=r"does not find .* the parent of"):
        graph.parent(copy)


def test_generations_are_found_by_their_hyperparameters() -> None:
    """The order of keys in meta_params does not matter."""
    first = {"lr": 0.1, "layers": (1, 2)}
    controller = PopulationController([first, {"lr": 0.2}, first], Scripted())
    ids = list(controller.graph)
    found = controller.graph.find({"layers": (1, 2), "lr": 0.1})
    assert found == [ids[0], ids[2]]
    assert controller.graph.find({"layers": [1, 2], "lr": 0.1}) == []


def test_the_graph_is_a_mapping_of_mappings() -> None:
    """It can be iterated, measured and read like a dict; steps ascend."""
    controller = branched()
    graph, first = controller.graph, next(iter(controller.graph))
    assert list(graph) == [first, generation(controller)]
    assert len(graph) == 2
    assert first in graph
    assert "unknown" not in graph
    assert graph.get("unknown") is None
    steps = graph[first]
    assert list(steps) == [0, 5, 10, 15]
    assert len(steps) == 4
    assert [c.value for c in steps.values()] == [None, 3.0, 1.0, 2.0]
    assert 5 in steps
    assert 6 not in steps
    assert steps.get(6) is None
    assert dict(steps.items())[10].params == "at 10"
    assert "2 generations" in repr(graph)
    assert "4 checkpoints" in repr(steps)


@pytest.mark.parametrize("key", ["unknown", ""])
def test_an_unknown_generation_is_a_key_error(key: str) -> None:
    """This is as in any mapping."""
    controller = branched()
    with pytest.raises(KeyError):
        controller.graph[key]
    with pytest.raises(KeyError):
        controller.graph.root(key)
    with pytest.raises(KeyError):
        controller.graph.checkpoint(Ref(key, 0))
    assert controller.graph.get_checkpoint(Ref(key, 0)) is None


def test_an_unknown_step_is_a_key_error() -> None:
    """This is as in any mapping."""
    controller = branched()
    for step in (99, -1, 2**63, 2**70):
        with pytest.raises(KeyError):
            controller.graph[generation(controller)][step]


def test_steps_ascend_also_when_they_came_out_of_order() -> None:
    """There are more of them than one page of the journal holds."""
    controller = PopulationController([{}], Scripted())
    first = generation(controller)
    steps = list(range(1, 700))
    random.Random(0).shuffle(steps)
    for step in steps:
        controller.set_eval(0, first, step, None, float(step))
    assert list(controller.graph[first]) == list(range(700))
    span = controller.graph.span(first, 100, 500, descending=True)
    assert [c.step for c in span] == list(range(500, 99, -1))
    assert len(list(controller.history())) == 700


def test_the_best_is_the_first_of_equals_and_never_diverged() -> None:
    """The first of equal values wins; NaN and infinities are left out."""
    controller = PopulationController([{}], Scripted())
    assert controller.best() is None
    first = generation(controller)
    reports: list[tuple[int, Any]] = [(1, math.nan), (2, 1), (3, 1), (4, -math.inf)]
    for step, value in reports:
        controller.set_eval(0, first, step, None, value)
    best = controller.best()
    assert best is not None
    assert best.step == 2


def test_the_history_is_a_table_of_named_columns() -> None:
    """Each row is a record, whose fields become the columns of a data frame."""
    rows = [checkpoint._asdict() for checkpoint in branched().history()]
    assert {"generation_id", "step", "value", "meta_params"} <= set(rows[0])
    assert [row["row"] for row in rows] == sorted(row["row"] for row in rows)
