"""A process is killed with SIGKILL; a fresh controller goes on as if nothing had been.

What `set_eval` has acknowledged is there exactly once, the graph is a forest, and the
run that goes on makes the same branches as one that was never interrupted.
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from population import PopulationController
from tests import crash_child
from tests.helpers import assert_is_a_forest, told

ROOT = pathlib.Path(__file__).parent.parent


Child = Callable[[pathlib.Path, str, int], subprocess.Popen[str]]


@pytest.fixture
def child() -> Iterator[Child]:
    """Starts a run in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(log_dir: pathlib.Path, point: str, count: int) -> Any:
            call = f"crash_child.main({str(log_dir)!r}, {point!r}, {count})"
            process = subprocess.Popen(
                [sys.executable, "-c", f"from tests import crash_child; {call}"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def acknowledged(process: subprocess.Popen[str]) -> list[tuple[str, int]]:
    """What a killed run had acknowledged before it died."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return _parsed(output)


def _parsed(output: str) -> list[tuple[str, int]]:
    pairs = [line.split() for line in output.splitlines()]
    return [(generation_id, int(step)) for generation_id, step in pairs]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[object]]:
    """The history of a run that nobody killed, with paths and with arrays."""
    histories: dict[bool, list[object]] = {}
    for arrays in (False, True):
        controller = crash_child.opened(tmp_path_factory.mktemp("whole"))
        crash_child.drive(controller, lambda *report: None, arrays)
        histories[arrays] = [_without_params(c) for c in told(controller)]
        controller.close()
    return histories


def _without_params(checkpoint: tuple[object, ...]) -> tuple[object, ...]:
    """Names of saved files are random."""
    return checkpoint[:2] + checkpoint[3:]


def check_and_finish(
    log_dir: pathlib.Path,
    reports: list[tuple[str, int]],
    expected: list[object],
    arrays: bool = False,
) -> PopulationController:
    """Whatever was promised about a killed run, and about its end."""
    controller = crash_child.opened(log_dir)
    counted = collections.Counter(
        tuple(c.ref) for c in controller.history() if c.value is not None
    )
    assert set(counted.values()) <= {1}
    assert set(reports) <= set(counted)
    assert len(counted) - len(reports) in (0, 1)  # The last one was on its way.
    assert_is_a_forest(controller.graph)
    for checkpoint in controller.history():
        if checkpoint.params is not None:
            controller.load(checkpoint)
    if reports:  # What was acknowledged may be delivered again.
        found = controller.graph[reports[-1][0]][reports[-1][1]]
        before = told(controller)
        report = (found.worker_id, *found.ref, found.params, found.value)
        controller.set_eval(*report)
        assert told(controller) == before
    crash_child.drive(controller, lambda *report: None, arrays)
    assert [_without_params(c) for c in told(controller)] == expected
    assert_is_a_forest(controller.graph)
    return controller


def test_a_run_that_is_killed_at_any_moment_goes_on_as_if_nothing_had_been(
    tmp_path: pathlib.Path, child: Child, uninterrupted: dict[bool, list[object]]
) -> None:
    """Killed from outside, wherever it happens to be after so many reports."""
    lines = random.Random(0).sample(range(1, crash_child.REPORTS - 4), k=4)
    for number, count in enumerate(lines):
        log_dir = tmp_path / str(number)
        process = child(log_dir, "never", 0)
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(count)]
        process.kill()
        reports = _parsed("".join(first) + process.stdout.read())
        assert len(reports) >= count
        check_and_finish(log_dir, reports, uninterrupted[False]).close()


POINTS = [
    ("in the transaction", 5),
    ("in the transaction", 11),
    ("before the commit", 2),
    ("before the commit", 8),
    ("before the acknowledgement", 1),
    ("before the acknowledgement", 6),
    ("between branches", 4),
    ("between branches", 5),
]


def test_a_run_that_is_killed_at_a_named_point_goes_on_as_if_nothing_had_been(
    tmp_path: pathlib.Path, child: Child, uninterrupted: dict[bool, list[object]]
) -> None:
    """Between the rows of one decision, before its commit, before its return."""
    running = [
        (tmp_path / str(number), child(tmp_path / str(number), *point))
        for number, point in enumerate(POINTS)
    ]
    for (log_dir, process), (point, _) in zip(running, POINTS, strict=True):
        reports = acknowledged(process)
        controller = check_and_finish(log_dir, reports, uninterrupted[False])
        controller.close()
        if point == "before the acknowledgement":
            assert len(reports) < crash_child.REPORTS


def test_what_was_recorded_but_not_acknowledged_is_recorded_once(
    tmp_path: pathlib.Path, child: Child
) -> None:
    """The worker that never heard of it reports it again."""
    process = child(tmp_path, "before the acknowledgement", 3)
    reports = acknowledged(process)
    assert len(reports) == 2
    controller = crash_child.opened(tmp_path)
    assert controller.session.slots.reports == 3
    third = next(c for c in controller.history() if c.worker_id == 2 and c.step == 1)
    before = told(controller)
    controller.set_eval(2, *third.ref, third.params, third.value)
    assert told(controller) == before
    controller.close()


SAVES = [("during the write", 4), ("before the rename", 3), ("after the rename", 7)]


def test_a_run_that_is_killed_while_it_saves_has_only_whole_params(
    tmp_path: pathlib.Path, child: Child, uninterrupted: dict[bool, list[object]]
) -> None:
    """What looks like a save is one; a draft that was left disturbs nobody."""
    running = [
        (tmp_path / str(number), child(tmp_path / str(number), *point))
        for number, point in enumerate(SAVES)
    ]
    for log_dir, process in running:
        reports = acknowledged(process)
        expected = uninterrupted[True]
        check_and_finish(log_dir, reports, expected, arrays=True).close()


def test_a_run_that_is_killed_while_it_is_made_can_be_made_again(
    tmp_path: pathlib.Path, child: Child
) -> None:
    """Before each single statement of the journal's creation and its first reports."""
    last = 90
    assert child(tmp_path, "creation", last).wait(timeout=60) == 0
    amounts = set()
    for count in range(1, last):
        told_parent = (tmp_path / f"{count}.acknowledged").read_text()
        reports = _parsed(told_parent)
        amounts.add(len(reports))
        controller = crash_child.opened(tmp_path / str(count))
        recorded = {tuple(c.ref) for c in controller.history() if c.value is not None}
        assert set(reports) <= recorded
        assert len(controller.workers) == 3
        crash_child.drive(controller, lambda *report: None, reports=6)
        assert_is_a_forest(controller.graph)
        controller.close()
    assert amounts >= {0, 1}
