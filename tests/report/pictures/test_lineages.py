"""Lineages as arrays say the same as walking from checkpoint to checkpoint."""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import strategies as st

from population import PopulationController
from population.reader.ancestors import known_ancestors
from population.report.pictures import lineages
from population.report.pictures.snapshot import Snapshot
from tests.helpers import Scripted, branch_at, reporter
from tests.report.pictures.runs import copied, large, of_values

PARENTS = st.lists(st.integers(-1, 30), min_size=1, max_size=30).map(
    lambda found: np.array([min(p, place - 1) for place, p in enumerate(found)])
)


@hypothesis.given(PARENTS, st.integers(0, 2**30))
def test_the_nearest_known_ancestor_is_the_first_on_the_way(
    parent: lineages.Ints, seed: int
) -> None:
    """It is that which following the parents finds first, and never itself."""
    known = np.random.default_rng(seed).random(len(parent)) < 0.4
    found = known_ancestors(parent, known)
    for index, expected in enumerate(found):
        at = parent[index]
        while at >= 0 and not known[at]:
            at = parent[at]
        assert at == expected


def test_a_line_begins_where_its_weights_were_reported() -> None:
    """Each generation is a line; a copied one begins with the donor's report."""
    run = Snapshot(copied())
    values = run.metric("value")
    before = run.known_ancestors(values)
    found = lineages.lines(run.checkpoints(), np.isfinite(values), before)
    pairs = [
        [(int(run.step[i]), float(values[i])) for i in part.tolist()] for part in found
    ]
    assert pairs == [[(1, 4.0), (2, 2.0)], [(1, 3.0), (2, 1.0)], [(2, 1.0), (3, 0.5)]]


def test_a_lineage_goes_back_to_its_root() -> None:
    """Oldest first; of nothing there is none."""
    parent = np.array([-1, 0, 1, 1, 3])
    assert lineages.lineage(parent, 4).tolist() == [0, 1, 3, 4]
    assert lineages.lineage(parent, -1).tolist() == []


def test_what_lives_on_leads_to_a_tip() -> None:
    """A checkpoint from which nobody continues is dead."""
    parent = np.array([-1, 0, 1, 1, 3, -1])
    alive = lineages.living(parent, [4])
    assert alive.tolist() == [True, True, False, True, True, False]
    run = Snapshot(copied())
    dead = [i for i in range(len(run.step)) if not run.alive[i]]
    assert {(int(run.worker_id[i]), int(run.step[i])) for i in dead} == {
        (0, 0),
        (0, 1),
        (0, 2),
    }


def test_generations_that_nobody_has_trained_are_no_spans() -> None:
    """A branch at the end is a decision, but no training: it is left out."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.9})))
    report = reporter(run)
    report(1.0)
    report(1.0)
    assert run.workers[0].meta_params == {"lr": 0.9}
    found = Snapshot(run.history()).spans
    assert found.end.tolist() == [2]
    assert found.branched.tolist() == [False]


def test_a_span_continues_the_last_one_that_was_trained() -> None:
    """A generation between the two, which was restarted at once, is skipped."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(1, {"lr": 0.1})))
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    found = Snapshot(run.history()).spans
    assert found.generation.tolist() == [0, 2]
    assert found.parent.tolist() == [-1, 0]
    assert found.branched.tolist() == [False, True]  # By the decision between them.


def test_a_restart_is_no_branch() -> None:
    """After a failure the same hyperparameters go on."""
    run = PopulationController([{"lr": 0.1}], Scripted())
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    assert not Snapshot(run.history()).spans.branched.any()


def test_the_last_span_of_a_retired_slot_is_marked() -> None:
    """And only that one; from it nothing lives on."""
    controller = PopulationController([{"lr": 0.1}] * 2, Scripted(), max_failures=1)
    for worker_id in (0, 1):
        reporter(controller, worker_id)(3.0)
    controller.fail(1, "a pity")
    run = Snapshot(controller.history())
    assert run.spans.retired.tolist() == [False, True]
    assert not run.alive[run.worker_id == 1].any()


def test_a_run_that_trains_is_read_to_one_point() -> None:
    """Generations that were opened after its checkpoints were read are left out."""
    run = large(5, 20, 10)
    seen = run.table["step"] < 10
    run.table = {name: column[seen] for name, column in run.table.items()}
    assert len(Snapshot(run).spans.begin) == 5


def test_an_unlucky_run_has_no_lines() -> None:
    """Without a finite value there is nothing to draw, and no best."""
    run = Snapshot(of_values([[float("nan")], [None]]))
    values = run.metric("value")
    before = run.known_ancestors(values)
    assert lineages.lines(run.checkpoints(), np.isfinite(values), before) == []
    assert run.best == -1
