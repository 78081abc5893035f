"""Train a population in processes of this machine.

`run(train, controller)` calls `train(worker)` in each process. Each opens the run
folder by itself; they work as one population, and a process that dies stops no other.
Its death is a failure of the slot that it trained.
The caller's settings of JAX are in force in each process, except those that choose its
devices.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from population.base.log_once import Notice
from population.base.types import Event
from population.controller import PopulationController
from population.engines import jax_settings, trials
from population.engines.processes import gpus, pickling, settings
from population.engines.processes.parent import ChildProcess
from population.engines.summary import Summary as Summary
from population.report import progress as progress_module
from population.run import polls
from population.worker import Worker

logger = logging.getLogger("population")
_REFRESH_S = 0.2
_GRACE_S = 5.0
_MOST_WITHOUT_SLOT = 3  # Then what they import or open is broken.
_NAMED = 8


def run(
    train: Callable[[Worker], None],
    controller: PopulationController,
    num_workers: int | None = None,
    *,
    gpus_per_worker: float | None = None,
    memory_fraction: float | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> Summary:
    """Call `train(worker)` in processes until each of them returns.

    `train` and the mutator are sent to new processes with pickle: define functions and
    classes at the top of a module, and call this under `if __name__ == "__main__":`.

    The first exception stops the others when they next read `worker.running`; it is
    raised here, with the worker's id and its traceback as notes. Ctrl-C also stops all
    of them, and returns; a second one ends them at once. If this process dies, they
    stop. If one of them is killed, this logs a warning and records a failure of its
    slot, which the others continue. With `on_error="fail"` so is an exception of
    `train`, as in `threads.run`, and a new process replaces one that was killed.

    Args:
        train: The training loop of one worker.
        controller: The population; it must have a `log_dir`.
        num_workers: The number of processes; by default one for each slot.
        gpus_per_worker: GPUs that a process may see, or the share of one, such as 0.5.
            By default all visible GPUs, divided evenly.
        memory_fraction: The share of a GPU's memory that JAX takes in each process. By
            default what JAX takes is divided among the processes on a GPU.
        on_error: What an exception of `train` ends: the run ("raise") or its trial.
        progress: Whether to show bars.

    Raises:
        ValueError: An argument is invalid, the controller has no `log_dir`, or there
            are too few GPUs.
        NoProgressError: All slots are retired, because they failed too often.
        TypeError: An object cannot be pickled; the message names it.
        RuntimeError: All processes died, or an exception cannot be sent back.
        Exception: The first exception that a worker raised.
    """
    count = trials.check(controller, num_workers, on_error)
    processes = _WorkerProcesses(train, controller, on_error)
    places = gpus.environments(count, gpus_per_worker, memory_fraction)
    failures = trials.FailureCount(controller)
    start = time.perf_counter()
    with progress_module.bars(controller) if progress else contextlib.nullcontext():
        try:
            interrupted = processes.work(places)
        finally:
            processes.end()
    wall_s = time.perf_counter() - start
    if processes.error is not None:
        raise processes.error
    finished = controller.finished  # Read in any case, as this calls `on_event`.
    if processes.all_died and not (interrupted or finished):
        raise RuntimeError(_all_died(processes.deaths))
    trials.check_failures(controller)
    counts = len(processes.deaths), failures.since()
    return Summary(count, wall_s, processes.overhead_s, interrupted, *counts)


class _WorkerProcesses:
    """All processes: one thread reads their messages, the caller's waits for it.

    Args:
        train: The training loop of one worker.
        controller: The population.
        on_error: "raise" or "fail".

    Attributes:
        error: The error to raise in the caller's thread, or None.
        deaths: Descriptions of the processes that died.
        overhead_s: Seconds inside poll and report, of all workers.
    """

    def __init__(
        self,
        train: Callable[[Worker], None],
        controller: PopulationController,
        on_error: str,
    ) -> None:
        own: dict[str, Any] = {"train": train, "on_error": on_error}
        own["siblings"] = secrets.token_hex(4)
        own["statuses"] = controller.open_run.session.statuses
        packed = pickling.pack(own | controller.arguments())
        self._payload = pickle.dumps((settings.sent(), packed))
        self._controller = controller
        self._replaces = on_error == "fail"
        self._settings, _ = jax_settings.examined()  # For `on_event`.
        self._missed: set[str] = set()
        self._members: list[ChildProcess] = []
        self._listener = threading.Thread(
            target=self._listen, name="population-listener", daemon=True
        )
        self._all_ended = threading.Event()
        self._lock = threading.Lock()  # So that none starts after the order to stop.
        self._stopping = self._ending = False
        self._without_slot = 0  # Deaths in a row of processes that had no slot yet.
        self.error: BaseException | None = None
        self.deaths: list[str] = []
        self.overhead_s = 0.0

    @property
    def all_died(self) -> bool:
        """Whether no process has ended by itself."""
        return len(self.deaths) == len(self._members)

    def work(self, places: Sequence[Mapping[str, str]]) -> bool:
        """Train until every process has ended; return whether Ctrl-C ended them."""
        try:
            for index, environment in enumerate(places):
                self._start(f"population-{index}", environment)
            for member in self._members:
                member.begin(self._payload)
            self._wait()
        except KeyboardInterrupt:
            logger.warning("interrupted: every worker stops at its next step")
            self.stop()
            self._wait()
            return True
        return False

    def stop(self) -> None:
        """End every loop, also those of waiting workers."""
        with self._lock:
            self._stopping = True
        for member in self._members:
            member.stop()

    def end(self) -> None:
        """End all processes; kill those that do not end by themselves."""
        self._ending = True
        self.stop()
        for process in self._alive():
            process.terminate()
        for process in self._alive():
            process.join(_GRACE_S)
        for process in self._alive():
            process.kill()
        self._wait()

    def _start(self, name: str, environment: Mapping[str, str]) -> ChildProcess | None:
        """Start a process, unless all were ordered to stop."""
        tells_events = self._controller.events.on_event is not None
        with self._lock:
            if self._stopping:
                return None
            member = ChildProcess(name, environment, tells_events)
            self._members.append(member)
            member.start()
        return member

    def _alive(self) -> list[BaseProcess]:
        processes = [member.process for member in self._members]
        return [p for p in processes if p.pid is not None and p.exitcode is None]

    def _wait(self) -> None:
        if self._listener.ident is None:
            self._listener.start()
        # No join: in Python 3.11 and 3.12 a thread counts as ended once Ctrl-C has
        # interrupted a join. With a timeout, as Python handles Ctrl-C only in between.
        while not self._all_ended.wait(_REFRESH_S):
            pass

    def _listen(self) -> None:
        """Read the messages of all processes until they have ended."""
        try:
            with jax_settings.applied(self._settings):
                self._listen_to_all()
        except BaseException as error:  # Raised again by `run`, in the caller's thread.
            self.error = self.error or error
            self.stop()
        finally:
            self._all_ended.set()

    def _listen_to_all(self) -> None:
        while present := [m for m in self._members if m.process.pid and not m.ended]:
            connection.wait([s for m in present for s in m.signs()], _REFRESH_S)
            for member in present:
                for message in member.listen():
                    self._hear(member, message)
                if member.ended and not member.has_answered:
                    self._note_death(member)

    def _hear(self, member: ChildProcess, message: object) -> None:
        if isinstance(message, Event):
            self._controller.events.emit(message)
        elif isinstance(message, Notice):
            self._controller.open_run.notices.say(message)
        elif isinstance(message, pickling.Done):
            self.overhead_s += message.overhead_s
        elif isinstance(message, pickling.NotInForce):
            if not self._missed.issuperset(message.names):
                jax_settings.warn("train", message.names)
            self._missed.update(message.names)
        elif isinstance(message, pickling.Failed):
            self.error = self.error or pickling.unpack_error(message, str(member))
            self.stop()

    def _note_death(self, member: ChildProcess) -> None:
        self.deaths.append(f"{member} {member.how_it_ended()}")
        is_recorded = False
        if not self._stopping:  # Else it may have been this process that ended it.
            is_recorded = self._record_death(member)
        if not self._ending:
            rest = "; this is recorded as a failure of its slot" if is_recorded else ""
            logger.warning("%s%s", self.deaths[-1], rest)
        had_slot = member.began or is_recorded
        self._without_slot = 0 if had_slot else self._without_slot + 1
        may_begin = self._without_slot <= _MOST_WITHOUT_SLOT
        if may_begin and self._replaces and not self._controller.finished:
            found = self._start(member.process.name, member.environment)
            if found is not None:
                found.begin(self._payload)

    def _record_death(self, member: ChildProcess) -> bool:
        """Record a failure of the slot that a process held; return whether it did."""
        run = self._controller.open_run
        if member.owner is None or run.closed:
            return False
        try:
            reason = f"its process {member.how_it_ended()}"
            return bool(polls.fail_process(run, member.owner, reason))
        except BaseException as error:  # Raised again by `run`, in the caller's thread.
            self.error = self.error or error
            self.stop()
            return False


def _all_died(deaths: Sequence[str]) -> str:
    advice = (
        "What was reported is recorded: call run again to go on."
        if any("killed" in death for death in deaths)
        else "Their errors are above. A program that calls run must do so under "
        '`if __name__ == "__main__":`, as each process imports it.'
    )
    named = [*deaths[:_NAMED], *["..."] * (len(deaths) > _NAMED)]
    return f"All processes of the population died: {', '.join(named)}. {advice}"
