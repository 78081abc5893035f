"""Train a population in processes of this machine.

`run(train, controller)` calls `train(worker)` in each process. Each opens the run
folder by itself; they work as one population, and a process that dies stops no other.
The caller's settings of JAX are in force in each process, except those that choose its
devices.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from population.base.types import Event
from population.controller import PopulationController
from population.engines import jax_settings
from population.engines.processes import gpus, pickling, settings
from population.engines.processes.parent import ChildProcess
from population.engines.summary import Summary as Summary
from population.report import progress as progress_module
from population.worker import Worker

if TYPE_CHECKING:
    from population.run.events import Events

logger = logging.getLogger("population")
_REFRESH_S = 0.2
_GRACE_S = 5.0


def run(
    train: Callable[[Worker], None],
    controller: PopulationController,
    num_workers: int | None = None,
    *,
    gpus_per_worker: float | None = None,
    memory_fraction: float | None = None,
    progress: bool = True,
) -> Summary:
    """Call `train(worker)` in processes until each of them returns.

    `train` and the mutator are sent to new processes with pickle: define functions and
    classes at the top of a module, and call this under `if __name__ == "__main__":`.

    The first exception stops the others when they next read `worker.running`; it is
    raised here, with the worker's id and its traceback as notes. Ctrl-C also stops all
    of them, and returns; a second one ends them at once. If a process is killed, this
    logs a warning, and the others continue its slot. If this process dies, they stop.

    Args:
        train: The training loop of one worker.
        controller: The population; it must have a `log_dir`.
        num_workers: The number of processes; by default one for each slot.
        gpus_per_worker: GPUs that a process may see, or the share of one, such as 0.5.
            By default all visible GPUs, divided evenly.
        memory_fraction: The share of a GPU's memory that JAX takes in each process. By
            default what JAX takes is divided among the processes on a GPU.
        progress: Whether to show bars.

    Raises:
        ValueError: An argument is out of range, the controller has no `log_dir`, or
            there are too few GPUs.
        TypeError: An object cannot be pickled; the message names it.
        RuntimeError: All processes died, or an exception cannot be sent back.
        Exception: The first exception that a worker raised.
    """
    controller.check_trainable()
    count = len(controller.workers) if num_workers is None else num_workers
    if type(count) is not int or count < 1:
        raise ValueError(f"num_workers must be a positive int, got {num_workers!r}.")
    parts = pickling.pack({"train": train, **controller.arguments()})
    payload = pickle.dumps((settings.sent(), parts))
    places = gpus.environments(count, gpus_per_worker, memory_fraction)
    processes = _WorkerProcesses(controller.events)
    start = time.perf_counter()
    with progress_module.bars(controller) if progress else contextlib.nullcontext():
        try:
            interrupted = processes.work(payload, places)
        finally:
            processes.end()
    wall_s = time.perf_counter() - start
    if processes.error is not None:
        raise processes.error
    finished = controller.finished  # Read in any case, as this calls `on_event`.
    if len(processes.deaths) == count and not (interrupted or finished):
        raise RuntimeError(_all_died(processes.deaths))
    return Summary(
        count, wall_s, processes.overhead_s, interrupted, len(processes.deaths)
    )


class _WorkerProcesses:
    """All processes: one thread reads their messages, the caller's waits for it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._settings, _ = jax_settings.examined()  # For `on_event`.
        self._missed: set[str] = set()
        self._members: list[ChildProcess] = []
        self._listener = threading.Thread(
            target=self._listen, name="population-listener", daemon=True
        )
        self._all_ended = threading.Event()
        self._ending = False
        self.error: BaseException | None = None
        self.deaths: list[str] = []
        self.overhead_s = 0.0

    def work(self, payload: bytes, places: Sequence[Mapping[str, str]]) -> bool:
        """Train until every process has ended; return whether Ctrl-C ended them."""
        try:
            tells_events = self._events.on_event is not None
            for index, environment in enumerate(places):
                member = ChildProcess(f"population-{index}", tells_events)
                self._members.append(member)
                member.start(environment)
            for member in self._members:
                member.begin(payload)
            self._wait()
        except KeyboardInterrupt:
            logger.warning("interrupted: every worker stops at its next step")
            self.stop()
            self._wait()
            return True
        return False

    def stop(self) -> None:
        """End every loop, also those of waiting workers."""
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
        started = [m for m in self._members if m.process.pid is not None]
        try:
            with jax_settings.applied(self._settings):
                self._listen_to(started)
        except BaseException as error:  # Raised again by `run`, in the caller's thread.
            self.error = self.error or error
            self.stop()
        finally:
            self._all_ended.set()

    def _listen_to(self, started: Sequence[ChildProcess]) -> None:
        while present := [member for member in started if not member.ended]:
            connection.wait([s for m in present for s in m.signs()], _REFRESH_S)
            for member in present:
                for message in member.listen():
                    self._hear(member, message)
                if member.ended and not member.told:
                    self._note_death(member)

    def _hear(self, member: ChildProcess, message: object) -> None:
        if isinstance(message, Event):
            self._events.emit(message)
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
        death = f"{member} {member.how_it_ended()}"
        self.deaths.append(death)
        if not self._ending:
            logger.warning("%s; the others go on with its slot", death)


def _all_died(deaths: Sequence[str]) -> str:
    advice = (
        "What was reported is recorded: call run again to go on."
        if any("killed" in death for death in deaths)
        else "Their errors are above. A program that calls run must do so under "
        '`if __name__ == "__main__":`, as each process imports it.'
    )
    return f"All processes of the population died: {', '.join(deaths)}. {advice}"
