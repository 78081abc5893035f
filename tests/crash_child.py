"""Processes that train a run and are killed: at a named point, or at a random moment.

They note each acknowledged report on a line, as `generation_id step`. Call the
functions with `python -c`: in a script they would belong to another module, and so
would the mutator. Children are forks of a process that has not used JAX, and so begin
within milliseconds.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sqlite3
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from population import PopulationController, Stop, Worker
from population.journal.sqlite import SqliteJournal
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.mutators.exploit import Truncation
from tests import probe
from tests.crash_points import around, crash_at, nth

REPORTS = 36
MANY = 60
STEPS = 12
ACKNOWLEDGEMENT = "before the acknowledgement"  # A point in a report that is recorded.
Acknowledge = Callable[[str, int], None]
Job = tuple[str, str, str, int]  # A folder, a function for it, a point, a count.
_connect = sqlite3.connect


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def opened(log_dir: str | os.PathLike[str]) -> PopulationController:
    """The run of raw loops that do not wait for each other."""
    return PopulationController([1.0, 2.0, 3.0], policy(), log_dir)


def policy() -> WinnerTakeAllGenetic:
    """The policy of the raw loops."""
    return WinnerTakeAllGenetic(mutate, 2)


def drive(
    controller: PopulationController,
    acknowledge: Acknowledge,
    arrays: bool = False,
    reports: int = REPORTS,
) -> None:
    """Always train the slot with the fewest steps, until there are enough reports."""
    while probe.reports(controller) < reports:
        workers = controller.workers
        worker_id = min(range(len(workers)), key=lambda w: workers[w].step)
        work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert work is not None
        step = work.step + 1
        params: Any = f"at {step}"
        if arrays:
            params = {"w": np.full(3, step)}
        value = work.meta_params**2
        controller.set_eval(worker_id, work.generation_id, step, params, value)
        probe.settle()  # So that a kill at a removal comes while it trains.
        acknowledge(work.generation_id, step)


def struggle(controller: PopulationController, acknowledge: Acknowledge) -> None:
    """Train like `drive`; trials fail at some steps, and slot 2 fails for good."""
    while probe.reports(controller) < REPORTS:
        workers, retired = controller.workers, probe.retired(controller)
        living = [w for w in range(len(workers)) if w not in retired]
        worker_id = min(living, key=lambda w: workers[w].step)
        work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert work is not None
        root = controller.graph.root(work.generation_id)
        has_failed = root.reason.startswith("failed: ") and root.step == work.step
        is_worn = worker_id == 2 and work.step >= 7
        if is_worn or (work.step % 3 == 2 and not has_failed):
            controller.fail(worker_id, f"it broke at {work.step}")
            continue
        step, value = work.step + 1, work.meta_params**2
        report = worker_id, work.generation_id, step
        controller.set_eval(*report, f"at {step}", value)
        acknowledge(work.generation_id, step)


def together(log_dir: str | os.PathLike[str] | None = None) -> PopulationController:
    """The run of workers that wait for each other: no timing changes a decision."""
    mutator = PopulationBasedTraining(
        mutate, 3, exploit=Truncation(0.5), synchronous=True
    )
    return PopulationController(
        [1.0, 2.0, 3.0, 4.0], mutator, log_dir, stop=Stop(steps=STEPS)
    )


class Loop:
    """A training loop; its weights are a number, kept as text in the place of a path.

    Args:
        worker: The handle of the loop.
        acknowledge: Called with each acknowledged report.
    """

    def __init__(self, worker: Worker, acknowledge: Acknowledge) -> None:
        self.worker = worker
        self._acknowledge = acknowledge
        self._weight = 1.0

    def step(self) -> bool:
        """Train a step and report it; False when the run has ended."""
        worker = self.worker
        if worker.poll():
            self._weight = float(worker.load_from or 1.0)
        if not worker.running:
            return False
        worker.step += 1
        self._weight += 0.01 * worker.meta_params * (1 + worker.step % 4)
        worker.report((self._weight - 1.3) ** 2, repr(self._weight))
        self._acknowledge(worker.generation_id, worker.step)
        return True


def train(controller: PopulationController, acknowledge: Acknowledge) -> None:
    """Train whatever slots there are with one worker, until the run ends."""
    with controller.worker() as worker:
        loop = Loop(worker, acknowledge)
        while loop.step():
            pass


def steal(controller: PopulationController, acknowledge: Acknowledge) -> None:
    """Train with a worker whose slot another worker takes over again and again."""
    loop = Loop(controller.worker(), acknowledge)
    while all(loop.step() for _ in range(3)):
        slow = loop.worker
        loop = Loop(controller.worker(slow.worker_id), acknowledge)
        slow.step += 1
        slow.report(0.0, "1.3")  # Too late: this worker has no slot any more.
        acknowledge(slow.generation_id, slow.step)
    loop.worker.release()


def kill_at(point: str, count: int) -> None:
    """Arrange for this process to be killed at the `count`-th passage of a point."""
    from population.params import FileParams, disk
    from population.run import remover

    vars(remover)["EVERY_S"] = 0.0
    calls: dict[str, tuple[Any, str, bool]] = {
        "before the rename": (os, "replace", True),
        "after the rename": (os, "replace", False),
        "during the write": (disk, "put", True),
        "before the removal": (FileParams, "remove", True),
        "after the removal": (FileParams, "remove", False),
    }
    records: dict[str, tuple[str, dict[str, Any]]] = {
        "in the transaction": ("checkpoints", {}),
        "between branches": ("generations", {}),
        "while a lease is written": ("leases", {}),
        "before a status is written": ("statuses", {"before": True}),
        "after a status is written": ("statuses", {}),
        "before the commit": ("commit", {"before": True}),
        **{
            f"{when} a takeover's generation": (
                "generations",
                {"before": when == "before", "reason": "takeover"},
            )
            for when in ("before", "after")
        },
    }
    if point in calls:
        owner, name, before = calls[point]
        wrapped = around(getattr(owner, name), nth(count, _kill), before)
        setattr(owner, name, wrapped)
    elif point in records:
        kind, options = records[point]
        crash_at(SqliteJournal, kind, count, _kill, **options)
    elif point == "any statement":
        _before_statements(nth(count, _kill))
    elif point not in ("never", ACKNOWLEDGEMENT):
        raise ValueError(f"there is no point {point!r}")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_statements(passing: Callable[[], object]) -> None:
    """Pass before each statement of SQL."""

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            passing()
            return super().execute(*arguments)

    sqlite3.connect = lambda *a, **k: _connect(*a, factory=Connection, **k)  # type: ignore[assignment]


def _noting(log_dir: str) -> Acknowledge:
    """Note acknowledged reports in a file beside the run; a kill leaves whole lines."""
    notes = os.open(f"{log_dir}.acknowledged", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def acknowledge(generation_id: str, step: int) -> None:
        os.write(notes, f"{generation_id} {step}\n".encode())

    return acknowledge


def _forked(child: Callable[[], object]) -> int:
    """Run a function in a process that then ends; returns the process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        traceback.print_exc()  # Else nobody would learn why.
    finally:
        os._exit(code)


def _was_killed(pid: int) -> bool:
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"process {pid} has failed")
    return os.WIFSIGNALED(status)


def _import_for_children() -> None:
    """JAX, which `kill_at` needs: it takes long, so once and not in each child."""
    warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
    import population.params  # noqa: F401


def play(jobs: Sequence[Job]) -> None:
    """Make runs, each in a new process, which is killed at a named point."""
    _import_for_children()
    for job in jobs:
        if not _was_killed(_forked(functools.partial(_do, *job))):
            raise RuntimeError(f"the point was not passed so often: {job}")


def _do(log_dir: str, what: str, point: str, count: int) -> None:
    acknowledge = _noting(log_dir)
    if point == ACKNOWLEDGEMENT:
        acknowledge = around(acknowledge, nth(count, _kill), before=True)
    kill_at(point, count)
    if what in ("paths", "arrays"):
        controller = opened(log_dir)
        drive(controller, acknowledge, arrays=what == "arrays")
        controller.close()
    elif what == "struggle":
        struggle(opened(log_dir), acknowledge)
    else:
        {"train": train, "steal": steal}[what](together(log_dir), acknowledge)


def create_with_kills(parent: str, counts: range) -> None:
    """Make a run for each count in a process of its own, killed at that statement."""

    def child(count: int) -> None:
        log_dir = f"{parent}/{count}"
        acknowledge = _noting(log_dir)
        kill_at("any statement", count)
        drive(opened(log_dir), acknowledge, reports=3)

    _import_for_children()
    for count in counts:
        _was_killed(_forked(functools.partial(child, count)))


def kill_at_random(parent: str, seed: int, kills: int) -> None:
    """Kill runs at random moments, each again and again until it reaches its end.

    `parent/kills` says how often each was killed.
    """
    choose = random.Random(seed)
    killed: list[int] = []
    while sum(killed) < kills:
        log_dir = f"{parent}/{len(killed)}"
        killed.append(0)
        while _runs_until_killed(log_dir, choose.randrange(7), choose.random()):
            killed[-1] += 1
    with open(f"{parent}/kills", "w") as file:
        file.write(" ".join(map(str, killed)))


def _runs_until_killed(log_dir: str, count: int, delay_ms: float) -> bool:
    """Continue a run; kill it some time after some reports. False at its end."""
    told, tells = os.pipe()

    def child() -> None:
        note = _noting(log_dir)

        def acknowledge(generation_id: str, step: int) -> None:
            note(generation_id, step)
            os.write(tells, b".")

        os.close(told)
        os.write(tells, b".")
        drive(opened(log_dir), acknowledge, reports=MANY)

    pid = _forked(child)
    os.close(tells)
    heard = 0
    while heard < count + 1 and (new := os.read(told, 1)):
        heard += len(new)
    until = time.perf_counter() + delay_ms / 1000
    while time.perf_counter() < until:
        pass
    os.kill(pid, signal.SIGKILL)
    os.close(told)
    return _was_killed(pid)


def crowd(log_dir: str, count: int, others: int) -> None:
    """Several processes train one run; one is killed after `count` of its reports.

    It holds a slot then, and others are at work. It is reaped only when they have
    ended: they find a dead process that still exists.
    """
    told, tells = os.pipe()
    begun, begins = os.pipe()

    def victim() -> None:
        note, left = _noting(log_dir), [count]

        def acknowledge(generation_id: str, step: int) -> None:
            note(generation_id, step)
            left[0] -= 1
            if not left[0]:
                os.write(begins, b"." * others)
                os.read(told, 1)
                os.kill(os.getpid(), signal.SIGKILL)

        train(together(log_dir), acknowledge)

    def other() -> None:
        note = _noting(log_dir)

        def acknowledge(generation_id: str, step: int) -> None:
            note(generation_id, step)
            os.write(tells, b".")

        controller = together(log_dir)
        os.read(begun, 1)
        train(controller, acknowledge)

    pids = [_forked(victim), *(_forked(other) for _ in range(others))]
    for pid in pids[1:]:
        _was_killed(pid)
    if not _was_killed(pids[0]):
        raise RuntimeError("the run ended before the kill")
