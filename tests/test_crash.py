"""A process is killed with SIGKILL; a new controller continues without a loss.

Each report that `set_eval` acknowledged is recorded exactly once, the graph is a
forest, and the run makes the same branches as one that was never interrupted.
"""

from __future__ import annotations

import collections
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import population
from population import PopulationController
from population.base.types import Saved
from tests import crash_child, probe
from tests.helpers import assert_is_a_forest, told

ROOT = pathlib.Path(__file__).parent.parent
Reports = list[tuple[str, int]]


def crash(call: str) -> None:
    """Call a function of `crash_child` in a new process."""
    subprocess.run(
        [sys.executable, "-c", f"from tests import crash_child; crash_child.{call}"],
        cwd=ROOT,
        check=True,
        timeout=300,
    )


def acknowledged(log_dir: pathlib.Path) -> Reports:
    """The reports that were acknowledged before the kill."""
    text = pathlib.Path(f"{log_dir}.acknowledged").read_text()
    pairs = [line.split() for line in text.splitlines()]
    return [(generation_id, int(step)) for generation_id, step in pairs]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """The history of a run without kills, with paths and with arrays."""
    histories: dict[str, list[object]] = {}
    for what, reports in (("paths", 36), ("arrays", 36), ("many", crash_child.MANY)):
        controller = crash_child.opened(tmp_path_factory.mktemp("whole"))
        crash_child.drive(controller, ignored, what == "arrays", reports)
        histories[what] = [_without_params(c) for c in told(controller)]
        controller.close()
    return histories


def ignored(generation_id: str, step: int) -> None:
    """Ignore the acknowledgements of a run that is not killed."""


def _without_params(checkpoint: tuple[object, ...]) -> tuple[object, ...]:
    """Names of saved files are random."""
    return checkpoint[:2] + checkpoint[3:]


def check_reports(
    controller: PopulationController, reports: Reports, kills: int = 1
) -> None:
    """No acknowledged report is lost or doubled; the graph is a forest."""
    counted = collections.Counter(
        tuple(c.ref) for c in controller.history() if c.value is not None
    )
    assert set(counted.values()) <= {1}
    assert len(set(reports)) == len(reports)  # No run was made again.
    assert set(reports) <= set(counted)
    assert len(counted) - len(reports) <= kills  # Each time one was unacknowledged.
    assert_is_a_forest(controller.graph)


def check_and_finish(
    log_dir: pathlib.Path,
    expected: list[object],
    *,
    arrays: bool = False,
    kills: int = 1,
    until: int = crash_child.REPORTS,
) -> PopulationController:
    """Check all promises about a killed run, and about its end."""
    reports = acknowledged(log_dir)
    controller = crash_child.opened(log_dir)
    check_reports(controller, reports, kills)
    for checkpoint in controller.history():
        if checkpoint.params is not None:
            controller.load(checkpoint)
    if reports:  # An acknowledged report may be sent again.
        found = controller.graph[reports[-1][0]][reports[-1][1]]
        before = told(controller)
        report = (found.worker_id, *found.ref, found.params, found.value)
        controller.set_eval(*report)
        assert told(controller) == before
    crash_child.drive(controller, ignored, arrays, until)
    assert [_without_params(c) for c in told(controller)] == expected
    assert_is_a_forest(controller.graph)
    return controller


# Kills at random moments.


def check_random_kills(
    folder: pathlib.Path, seed: int, kills: int, expected: list[object]
) -> None:
    """Kill runs from outside, each of them many times, and train them to the end."""
    crash(f"kill_at_random({str(folder)!r}, {seed}, {kills})")
    killed = [int(word) for word in (folder / "kills").read_text().split()]
    assert sum(killed) >= kills
    for number, times in enumerate(killed):
        check_and_finish(
            folder / str(number), expected, kills=times, until=crash_child.MANY
        ).close()


def test_a_run_that_is_killed_at_any_moments_goes_on_as_if_nothing_had_been(
    tmp_path: pathlib.Path, uninterrupted: dict[str, list[object]]
) -> None:
    """200 kills from outside, at any moment of a run, also while it opens."""
    check_random_kills(tmp_path, 0, 200, uninterrupted["many"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_run_that_is_killed_very_often_goes_on_as_if_nothing_had_been(
    seed: int, tmp_path: pathlib.Path, uninterrupted: dict[str, list[object]]
) -> None:
    """The test with 200 kills, for longer."""
    check_random_kills(tmp_path, seed, 1000, uninterrupted["many"])


# Kills at named points.

POINTS = [
    ("paths", "in the transaction", 5),
    ("paths", "in the transaction", 11),
    ("paths", "before the commit", 2),
    ("paths", "before the commit", 8),
    ("paths", "before the acknowledgement", 1),
    ("paths", "before the acknowledgement", 6),
    ("paths", "between branches", 4),
    ("paths", "between branches", 5),
    ("arrays", "during the write", 4),
    ("arrays", "before the rename", 3),
    ("arrays", "after the rename", 7),
    ("arrays", "in the transaction", 12),
]


def play(tmp_path: pathlib.Path, points: list[tuple[str, str, int]]) -> list[Any]:
    """Runs that were killed at a point: their folders and acknowledgements."""
    folders = [tmp_path / str(number) for number in range(len(points))]
    jobs = [(str(f), *point) for f, point in zip(folders, points, strict=True)]
    crash(f"play({jobs!r})")
    return list(zip(folders, points, strict=True))


def test_a_run_that_is_killed_at_a_named_point_goes_on_as_if_nothing_had_been(
    tmp_path: pathlib.Path, uninterrupted: dict[str, list[object]]
) -> None:
    """Kills between the rows of a decision, before its commit or return, in a save.

    Each file with the name of a save is complete; a temporary file does no harm.
    """
    for log_dir, (what, _, _) in play(tmp_path, POINTS):
        arrays = what == "arrays"
        check_and_finish(log_dir, uninterrupted[what], arrays=arrays).close()
        assert len(acknowledged(log_dir)) < crash_child.REPORTS


def test_what_was_recorded_but_not_acknowledged_is_recorded_once(
    tmp_path: pathlib.Path,
) -> None:
    """The worker that got no answer reports it again."""
    point = ("paths", "before the acknowledgement", 3)
    [(log_dir, _)] = play(tmp_path, [point])
    assert len(acknowledged(log_dir)) == 2
    controller = crash_child.opened(log_dir)
    assert probe.reports(controller) == 3
    third = next(c for c in controller.history() if c.worker_id == 2 and c.step == 1)
    before = told(controller)
    controller.set_eval(2, *third.ref, third.params, third.value)
    assert told(controller) == before
    controller.close()


def test_a_run_that_is_killed_while_it_is_made_can_be_made_again(
    tmp_path: pathlib.Path,
) -> None:
    """Kills before each statement of the journal's creation and its first reports."""
    last = 110
    crash(f"create_with_kills({str(tmp_path)!r}, range(1, {last}))")
    amounts = set()
    for count in range(1, last):
        reports = acknowledged(tmp_path / str(count))
        amounts.add(len(reports))
        controller = crash_child.opened(tmp_path / str(count))
        recorded = {tuple(c.ref) for c in controller.history() if c.value is not None}
        assert set(reports) <= recorded
        assert len(controller.workers) == 3
        crash_child.drive(controller, ignored, reports=6)
        assert_is_a_forest(controller.graph)
        controller.close()
    assert amounts >= {0, 1}


# While params are removed.

REMOVALS = [
    ("arrays", f"{when} the removal", count)
    for when in ("before", "after")
    for count in (1, 2, 5, 9, 14)
]


def saved_files(log_dir: pathlib.Path) -> set[str]:
    """The files of the params store, temporary ones included."""
    folder = log_dir / "params"
    found = (f for f in folder.rglob("*") if f.is_file() and f.parent.name != ".runs")
    return {str(file.relative_to(folder)) for file in found}


def noted_saves(controller: PopulationController) -> set[str]:
    """The saves that the journal knows."""
    named = {c.params for c in controller.history()}
    return {params.path for params in named if isinstance(params, Saved)}


def check_reachable(controller: PopulationController, log_dir: pathlib.Path) -> None:
    """All params that may still be needed can be loaded."""
    files = saved_files(log_dir)
    for ref in controller.reachable():
        assert controller.graph.checkpoint(ref).params.path in files
    assert noted_saves(controller) <= files


def check_tidy(controller: PopulationController, log_dir: pathlib.Path) -> None:
    """After a run is closed, only the files in its journal are left."""
    noted = noted_saves(controller)
    controller.close()
    assert saved_files(log_dir) == noted


def test_a_run_that_is_killed_while_it_removes_misses_nothing_and_tidies_up(
    tmp_path: pathlib.Path, uninterrupted: dict[str, list[object]]
) -> None:
    """Kills between a removal's record and the end of its file, and between two files.

    A later opening removes the leftovers, even if others only read the run before.
    """
    left = 0
    for log_dir, _ in play(tmp_path, REMOVALS):
        looked = crash_child.opened(log_dir)
        check_reachable(looked, log_dir)
        left += len(saved_files(log_dir) - noted_saves(looked))
        looked.close()
        finished = check_and_finish(log_dir, uninterrupted["arrays"], arrays=True)
        check_reachable(finished, log_dir)
        check_tidy(finished, log_dir)
    assert left >= len(REMOVALS) // 2


def test_what_a_killed_save_has_left_is_tidied_up(
    tmp_path: pathlib.Path, uninterrupted: dict[str, list[object]]
) -> None:
    """Temporary files, and complete files whose report was never recorded."""
    points = [
        ("arrays", point, count)
        for point in ("during the write", "before the rename", "after the rename")
        for count in (3, 9)
    ]
    for log_dir, _ in play(tmp_path, points):
        looked = crash_child.opened(log_dir)
        assert saved_files(log_dir) > noted_saves(looked)
        looked.close()
        finished = check_and_finish(log_dir, uninterrupted["arrays"], arrays=True)
        check_tidy(finished, log_dir)


# Kills while trials fail.

STRUGGLES = [
    *(("struggle", "before a status is written", n) for n in (1, 3, 8)),
    *(("struggle", "after a status is written", n) for n in (1, 2, 5, 9, 12)),
    *(("struggle", "before the commit", n) for n in (6, 13, 21)),
]


def standings(controller: PopulationController) -> list[tuple[object, ...]]:
    """All statuses that were recorded, without times and rows."""
    sql = (
        "SELECT number, worker_id, kind, reason, failures, retired, step FROM statuses "
        "ORDER BY number"
    )
    return probe.connection(controller).execute(sql).fetchall()


def test_a_failure_that_is_killed_halfway_is_recorded_with_what_follows_or_not(
    tmp_path: pathlib.Path,
) -> None:
    """Each failure counts once, and the run makes the same decisions as without."""
    whole = crash_child.opened(tmp_path / "whole")
    crash_child.struggle(whole, ignored)
    expected = told(whole), standings(whole)
    assert probe.retired(whole) == {2}
    kinds = {kind for _, _, kind, *_ in expected[1]}
    assert kinds == {"failed", "recovered"}
    for log_dir, _ in play(tmp_path, STRUGGLES):
        controller = crash_child.opened(log_dir)
        check_reports(controller, acknowledged(log_dir))
        crash_child.struggle(controller, ignored)
        assert (told(controller), standings(controller)) == expected
        found = population.replay(controller, crash_child.policy())
        assert found.first_difference is None, str(found)
        controller.close()


# Kills of workers with leases.

Decided = list[list[tuple[object, ...]]]


def decided(controller: PopulationController) -> Decided:
    """The branches of each slot: from which checkpoint it continues, and with what.

    Generations that begin with a takeover or a restart are not decisions.
    """
    branches: Decided = [[] for _ in controller.workers]
    for generation_id, generation in controller.graph.items():
        root = controller.graph.root(generation_id)
        if root.reason in ("start", "takeover", "resume"):
            continue
        assert root.parent is not None
        parent = controller.graph.checkpoint(root.parent)
        donor = (parent.worker_id, parent.step, parent.params)
        branches[root.worker_id].append((root.step, root.meta_params, *donor))
        assert generation
    return branches


@pytest.fixture(scope="module")
def planned() -> Decided:
    """The decisions of a run that is not killed."""
    controller = crash_child.together()
    crash_child.train(controller, ignored)
    branches = decided(controller)
    assert sum(map(len, branches)) == 8  # Half of four members, in each of four rounds.
    return branches


def takeovers(controller: PopulationController) -> int:
    """How many generations began with a takeover."""
    graph = controller.graph
    return sum(graph.root(name).reason == "takeover" for name in graph)


CLAIMS = [
    *(("train", "while a lease is written", n) for n in (1, 2, 3, 4, 5, 6, 12, 20)),
    ("train", "before the commit", 9),
    ("train", "before the acknowledgement", 7),
    ("train", "between branches", 6),
]
TAKEOVERS = [
    ("steal", f"{when} a takeover's generation", count)
    for when in ("before", "after")
    for count in (1, 2, 5)
]


def test_workers_that_are_killed_while_they_claim_or_report_change_no_decision(
    tmp_path: pathlib.Path, planned: Decided
) -> None:
    """The next process claims all slots at once: their owner is dead."""
    for log_dir, _ in play(tmp_path, CLAIMS):
        controller = crash_child.together(log_dir)
        check_reports(controller, acknowledged(log_dir))
        crash_child.train(controller, ignored)
        assert controller.finished
        assert takeovers(controller) == 0
        assert decided(controller) == planned
        controller.close()


def test_a_worker_that_is_killed_while_it_takes_over_leaves_no_half_of_it(
    tmp_path: pathlib.Path, planned: Decided
) -> None:
    """Kills between its lease, the generation that fences the other, and the commit."""
    for log_dir, (_, _, count) in play(tmp_path, TAKEOVERS):
        controller = crash_child.together(log_dir)
        check_reports(controller, acknowledged(log_dir))
        assert takeovers(controller) == count - 1
        crash_child.train(controller, ignored)
        assert takeovers(controller) == count - 1
        assert decided(controller) == planned
        controller.close()


def test_takeovers_change_no_decision(planned: Decided) -> None:
    """The late reports of fenced workers are side branches."""
    controller = crash_child.together()
    crash_child.steal(controller, ignored)
    assert takeovers(controller) > 5
    assert decided(controller) == planned


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_when_one_of_several_processes_is_killed_the_others_train_its_slot(
    count: int, tmp_path: pathlib.Path, planned: Decided
) -> None:
    """They do so at once, before the dead one is reaped; no branch changes."""
    log_dir = tmp_path / "run"
    crash(f"crowd({str(log_dir)!r}, {count}, others=2)")
    controller = crash_child.together(log_dir)
    check_reports(controller, acknowledged(log_dir), kills=0)
    assert controller.finished
    assert takeovers(controller) == 0
    assert decided(controller) == planned
    controller.close()
