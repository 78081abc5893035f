"""Eight processes with four threads each train one population.

They are raw loops and workers, under three policies: nothing is lost, no process hangs,
and each branch is applied once.
"""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from population import Checkpoint, PopulationController, replay
from tests import stress_child

ROOT = pathlib.Path(__file__).parent.parent
_DEADLOCK_S = 120.0


class Told(NamedTuple):
    """What all processes print together.

    Attributes:
        failed: Exceptions of threads.
        reports: Slot, generation, step, params and value of acknowledged reports.
        received: The generations that polls returned.
        decided: Worker, parent and meta_params of each branch.
        known: What each process knows of the run at the end.
    """

    failed: list[str]
    reports: list[list[Any]]
    received: list[str]
    decided: list[list[Any]]
    known: list[dict[str, str]]


@pytest.mark.parametrize(
    ("policy", "ticks"),
    [
        ("winner", 5_000),
        ("pbt", 2_000),
        ("synchronous", 2_000),
        pytest.param("winner", 20_000, marks=pytest.mark.slow),
        pytest.param("pbt", 20_000, marks=pytest.mark.slow),
        pytest.param("synchronous", 20_000, marks=pytest.mark.slow),
    ],
)
def test_eight_processes_with_four_threads_each_lose_nothing(
    policy: str, ticks: int, tmp_path: pathlib.Path
) -> None:
    """Each report is recorded once, each branch was applied once and trained."""
    controller = stress_child.opened(tmp_path, policy, ticks)
    for slot in range(stress_child.RAW_SLOTS):  # Otherwise a worker might claim them.
        controller.maybe_get_worker_data(slot, None, 0, None, None)
    told = together(tmp_path, policy, ticks)
    assert told.failed == []
    history = list(controller.history())
    check_reports(told.reports, history, ticks)
    check_branches(told, history)
    check_forest(history)
    check_known(told.known, controller)
    controller.close()
    again = stress_child.opened(tmp_path, policy, ticks)
    check_known(told.known, again)
    again.close()
    replayed = replay(tmp_path, stress_child.Noting(policy))
    assert replayed.decisions
    assert replayed.first_difference is None


def together(log_dir: pathlib.Path, policy: str, ticks: int) -> Told:
    """Run all processes to the end of the run; kill them if they hang."""
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(child(log_dir, policy, ticks, number))
            for number in range(stress_child.PROCESSES)
        ]
        for word in ("ready", "ended"):
            heard = [said(process) for process in children]
            assert heard == [word] * len(children), "one has failed or was stuck"
            for process in children:
                tell(process)
        found = [json.loads(said(process)) for process in children]
    failed, reports, received, decided = (
        [entry for f in found for entry in f[key]] for key in Told._fields[:4]
    )
    return Told(failed, reports, received, decided, [f["known"] for f in found])


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str]) -> None:
    """Let a process continue."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@contextlib.contextmanager
def child(log_dir: pathlib.Path, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed, with its stacks printed, if it does not end."""
    call = f"stress_child.main({str(log_dir)!r}, *{arguments!r})"
    watch = f"import faulthandler; faulthandler.dump_traceback_later({_DEADLOCK_S})"
    code = f"{watch}; from tests import stress_child; {call}"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(_DEADLOCK_S + 10, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def check_reports(
    reports: list[list[Any]], history: list[Checkpoint], ticks: int
) -> None:
    """Acknowledged reports are recorded once, and no others."""
    recorded = [
        [c.worker_id, c.generation_id, c.step, c.params, c.value]
        for c in history
        if c.value is not None
    ]
    assert len(recorded) >= ticks
    assert counted(recorded) == counted(reports)
    assert max(counted(reports).values()) == 1


def check_known(told: list[dict[str, str]], controller: PopulationController) -> None:
    """All processes know the same, which is what the journal says."""
    here = stress_child.known(controller)
    wrong = [key for key in here for there in told if there[key] != here[key]]
    assert wrong == []


def check_branches(told: Told, history: list[Checkpoint]) -> None:
    """Each decision has become one generation, and some worker has trained it."""
    roots: dict[str, Checkpoint] = {}
    for checkpoint in history:
        roots.setdefault(checkpoint.generation_id, checkpoint)
    numbers = collections.defaultdict(list)
    applied, others = [], set()
    for generation_id, root in roots.items():
        numbers[root.worker_id].append(int(generation_id.rsplit("-", 1)[1]))
        if root.reason in ("start", "resume", "takeover"):
            others.add(root.reason)
            continue
        assert root.parent is not None
        applied.append([root.worker_id, *root.parent, root.meta_params])
    assert len(applied) >= len(numbers)
    assert counted(applied) == counted(told.decided)
    assert "takeover" not in others
    assert all(found == list(range(len(found))) for found in numbers.values())
    newest = {found[-1]: slot for slot, found in last_ids(roots).items()}
    assert set(roots) - set(told.received) <= set(newest)
    assert set(told.received) <= set(roots)


def last_ids(roots: dict[str, Checkpoint]) -> dict[int, list[str]]:
    """The generation ids of each slot, in order."""
    found = collections.defaultdict(list)
    for generation_id, root in roots.items():
        found[root.worker_id].append(generation_id)
    return found


def check_forest(history: list[Checkpoint]) -> None:
    """Each parent was recorded earlier, at no greater step."""
    by_ref = {checkpoint.ref: checkpoint for checkpoint in history}
    assert len(by_ref) == len(history)
    for checkpoint in history:
        if checkpoint.parent is not None:
            parent = by_ref[checkpoint.parent]
            assert (parent.row, parent.step) <= (checkpoint.row - 1, checkpoint.step)


def counted(entries: list[list[Any]]) -> collections.Counter[str]:
    """How often each item occurs; NaN equals itself here."""
    return collections.Counter(map(repr, entries))
