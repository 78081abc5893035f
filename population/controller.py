"""The controller: the two calls of a training loop, and queries of a run."""

from __future__ import annotations

import collections
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from population.base.errors import ParamsError
from population.base.interfaces import Mutator, ParamsStore
from population.base.refusals import shortly
from population.base.run_paths import run_folder
from population.base.types import ActiveWorker, Checkpoint, Ref, Schedule, Stop
from population.core.facts import read, texts_of
from population.core.graph import JournalGraph
from population.core.known import check_checkpoint, check_id
from population.core.retention import Keep
from population.core.step import EncodedReport
from population.journal.base import Find, Journal
from population.run import arguments, opening, polls, structures
from population.run.events import OnEvent
from population.run.population_lease import PopulationLease
from population.worker import Worker

logger = logging.getLogger("population")
# The options that another process of the run does not need, or has itself.
_NOT_SHARED = {"journal", "space", "on_event", "clock"}


class PopulationController:
    """Decides, while a population trains, from which checkpoint each slot continues.

    Safe for threads. To resume a run, construct the controller again with the same
    `log_dir`; then only the length of `initial_population` matters. But an entry with
    keys of the run's meta_params must have all of them and no others.

    Args:
        initial_population: The meta_params of each worker, or a `Start` for one.
        mutator: The policy, which decides the branches and their meta_params.
        log_dir: The run folder; made if it does not exist. None: nothing is kept.
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        seed: The seed of every random number of the run; an int of 0 or more.
        stop: When the run ends; None: never.
        params: The params store; by default files in `log_dir`, or memory.
        journal: The journal of the run; by default SQLite in `log_dir`, or memory.
        space: The space of valid meta_params (`population.space`). It is recorded for
            people who read the run, and defines which axes of plots are logarithmic.
        keep: Which saved arrays to keep although no decision, restart or worker can
            need them any more (`population.Keep`). None: as recorded when
            the run began, else none.
        worker_timeout: Seconds without a poll or report after which a slot's worker
            counts as dead: another one may take the slot over. None: a slot is lost
            only by a process of this host that has died.
        durability: What an acknowledged report survives: "process", the death of any
            process, or "power", a power cut too.
        on_event: Called with each `population.Event` of this process, after it is
            recorded and outside of any lock; the library logs an exception of it.
        clock: Returns seconds since the epoch.

    Attributes:
        graph: All checkpoints: `graph[generation_id][step]`.
        events, open_run: The run as the library's own engines and tests see it.

    Raises:
        ValueError: An argument is invalid.
        TypeError: The meta_params or params cannot be stored; the place is named.
        JournalError: The run folder cannot be used.
        RunMismatchError: It holds a run with another size, mode, seed or mutator, or
            whose meta_params have another structure.
    """

    def __init__(
        self,
        initial_population: Sequence[Any],
        mutator: Mutator[Any],
        log_dir: str | os.PathLike[str] | None = None,
        *,
        mode: str = "min",
        seed: int = 0,
        stop: Stop | None = None,
        params: ParamsStore | None = None,
        journal: Journal | None = None,
        space: Any = None,
        keep: Keep | None = None,
        worker_timeout: float | None = None,
        durability: str = "process",
        on_event: OnEvent | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        starts = arguments.starts_of(initial_population)
        options = arguments.Options(
            mutator=mutator,
            mode=mode,
            seed=seed,
            stop=stop,
            params=params,
            journal=journal,
            space=space,
            keep=keep,
            worker_timeout=worker_timeout,
            durability=durability,
            on_event=on_event,
            clock=clock,
        )
        folder = None if log_dir is None else run_folder(log_dir)
        self.open_run = opening.open_run(starts, options, folder)
        self.graph: JournalGraph = self.open_run.graph
        self.events = self.open_run.events

    @classmethod
    def from_space(
        cls,
        space: Any,
        size: int,
        mutator: Mutator[Any],
        log_dir: str | os.PathLike[str] | None = None,
        *,
        initial: str = "random",
        seed: int = 0,
        **options: Any,
    ) -> PopulationController:
        """Return a controller whose first meta_params are drawn from a space.

        Args:
            space: The space of valid meta_params: a tree of `population.space` domains.
            size: The number of slots.
            mutator: The policy; it explores, for example, by `Perturb(space)`.
            log_dir: The run folder, or None.
            initial: "random", or "grid" for evenly spaced meta_params.
            seed: The seed of the run; the first meta_params depend on it.
            **options: Further arguments of the constructor.

        Raises:
            ValueError: The space has no domain, or an argument does not fit.
        """
        first = arguments.first_population(space, size, initial, seed)
        return cls(first, mutator, log_dir, seed=seed, space=space, **options)

    def maybe_get_worker_data(
        self,
        worker_id: int,
        generation_id: str | None,
        step: int,
        params: Any,
        meta_params: Any,
    ) -> ActiveWorker | None:
        """Return new work of a slot, if there is any; else this costs microseconds.

        Args:
            worker_id: The slot.
            generation_id: The generation in training; None or "" at the start.
            step: The training steps of its params.
            params: Ignored; `set_eval` saves params.
            meta_params: Ignored.

        Returns:
            The slot's work, or None to continue.

        Raises:
            TypeError, ValueError: An argument is invalid; nothing has changed.
        """
        del params, meta_params
        found = polls.poll(self.open_run, worker_id, generation_id, step)
        return found and polls.with_arrays(self.open_run, worker_id, found)

    def set_eval(
        self,
        worker_id: int,
        generation_id: str,
        step: int,
        params: Any,
        value: Any,
        metrics: Any = None,
    ) -> None:
        """Report a checkpoint. When this returns, it and its branches are recorded.

        Safe to repeat; a value may come later.

        Args:
            worker_id: The slot.
            generation_id: The generation that was trained.
            step: The training steps of `params`.
            params: The params from which training can continue: a path, or a pytree of
                arrays, which is copied. None: a report without params.
            value: The result of the evaluation; None: not evaluated.
            metrics: Further figures, as plain data.

        Raises:
            TypeError, ValueError: An argument is invalid; nothing has changed.
            JournalError: The report cannot be recorded.
            RuntimeError: No member makes progress, so that the run would never end.
            Exception: The mutator has raised it; nothing was recorded then.
        """
        run = self.open_run
        new = run.encode(worker_id, generation_id, step, params, value, metrics)
        run.submit((new,))
        run.check_progress()

    def set_evals(self, reports: Iterable[tuple[Any, ...]]) -> dict[int, ActiveWorker]:
        """Report several checkpoints in one transaction.

        All are recorded first; then the mutator sees each in worker order, except those
        of slots that were branched earlier in the batch.

        Args:
            reports: Tuples in the argument order of `set_eval`.

        Returns:
            The new work of slots, by worker id. If its params cannot be read, this
            logs a warning and leaves the slot out: its next poll raises.
        """
        run, new = self.open_run, list[EncodedReport]()
        try:
            for report in reports:
                if not isinstance(report, (tuple, list)) or len(report) not in (5, 6):
                    raise TypeError(
                        "set_evals needs tuples (worker_id, generation_id, step, "
                        f"params, value[, metrics]), got {shortly(report)}."
                    )
                new.append(run.encode(*report))
        except BaseException:
            run.params.forget(new)
            raise
        branched = run.submit(new)
        run.check_progress()
        found = {}
        for worker_id, work in sorted(branched.items()):
            try:
                found[worker_id] = polls.with_arrays(run, worker_id, work)
            except ParamsError as error:  # The reports are recorded nevertheless.
                logger.warning("worker %d has other work: %s", worker_id, error)
        return found

    def give_up(self, worker_id: int) -> None:
        """Stop waiting for a slot, until a later step than its newest is reported.

        For raw loops whose process is dead (another `Worker` replaces a dead one).
        Decisions that wait for all slots come without this one: at once if the others
        have reported all that is needed; with none left, once a slot trains further.
        """
        polls.give_up(self.open_run, [worker_id])

    def claim_all(self, *, again: bool = True) -> PopulationLease:
        """Claim every slot for one loop that trains the whole population.

        From now on the reports and polls of this controller are that loop's. It must
        load all slots again: `InMemory` params of an earlier claim count as lost.

        Args:
            again: Whether another loop of this controller may hold them already.

        Returns:
            The lease: the work of each slot, and the methods that an engine needs.

        Raises:
            ClaimError: Another worker that may be alive holds a slot.
        """
        self.open_run.check_open(to_train=True)
        return PopulationLease(self.open_run, again=again)

    def worker(
        self, worker_id: int | None = None, *, stopped: threading.Event | None = None
    ) -> Worker:
        """Claim a slot for one training loop; `with` gives it back at the end.

        Args:
            worker_id: The slot to begin with, even if another worker holds it. None:
                the free slot with the fewest steps; waits until there is one.
            stopped: An event that ends the loop; call `wake` after setting it.
        """
        return Worker(self.open_run, worker_id, stopped)

    def wake(self) -> None:
        """Wake waiting workers, so that they check whether they were stopped."""
        self.open_run.wake()

    def check_trainable(self) -> None:
        """Raise a JournalError if the run is closed or read-only."""
        self.open_run.check_open(to_train=True)

    @property
    def workers(self) -> list[ActiveWorker]:
        """The present work of each slot, by worker id, without loading arrays."""
        run = self.open_run
        run.check_open()
        with run.lock.lock:
            return [run.active(worker_id) for worker_id in range(run.size)]

    @property
    def finished(self) -> bool:
        """Whether `stop` has ended the run."""
        return self.open_run.finished()

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.open_run.seed

    @property
    def space(self) -> Any:
        """The recorded space of valid meta_params; None if none was given."""
        with self.open_run.lock.lock:
            recorded = texts_of(self.open_run.journal)
        return structures.recorded_space(read(recorded))

    @property
    def stop(self) -> Stop:
        """When the run ends."""
        return self.open_run.stop

    @property
    def log_dir(self) -> pathlib.Path | None:
        """The run folder, or None."""
        return self.open_run.log_dir

    def best(self) -> Checkpoint | None:
        """Return the checkpoint with the best finite value; None: no finite value."""
        return self.graph.best()

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return all checkpoints that led to this one, oldest first."""
        return self.graph.lineage(check_checkpoint(checkpoint, "lineage"))

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """Return the hyperparameters over steps that led to a checkpoint.

        Raises:
            TypeError: Not a `Checkpoint`; `best()` is None before a finite value.
        """
        return self.graph.schedule(check_checkpoint(checkpoint, "schedule"))

    def history(self) -> Iterator[Checkpoint]:
        """Yield all checkpoints in recorded order; `pandas.DataFrame` accepts them."""
        return self.graph.history()

    def newest(self, worker_id: int) -> Checkpoint:
        """Return a slot's newest checkpoint."""
        run = self.open_run
        run.check_open()
        with run.lock.lock:
            return run.state().slots[check_id(run.size, worker_id)].newest

    def load(self, checkpoint: Checkpoint, like: Any = None) -> Any:
        """Return a checkpoint's params, read from the params store if it keeps them.

        Args:
            checkpoint: The checkpoint.
            like: A tree with the wanted structure and kinds of leaves, for example from
                `init`. Not needed for plain containers of arrays.

        Raises:
            ParamsError: The params are missing, damaged, or do not fit `like`.
        """
        self.open_run.check_open()
        found = check_checkpoint(checkpoint, "load")
        return self.open_run.params.load(found.params, like)

    def reachable(self) -> set[Ref]:
        """Return checkpoints whose params a decision, restart or worker may need."""
        run = self.open_run
        run.check_open()
        with run.lock.lock, run.journal.reading():
            return {found.ref for found in run.reachable(run.state()).values()}

    def diverged(self) -> list[int]:
        """Return how many values of each slot were NaN or infinite, by worker id."""
        run = self.open_run
        with run.lock.lock:
            rows = run.journal.checkpoints(Find(diverged=True))
        found = collections.Counter(row.worker_id for row in rows)
        return [found[worker_id] for worker_id in range(run.size)]

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments for another process to open this run.

        Raises:
            ValueError: The journal is not in a `log_dir`, where others can find it.
        """
        run, options = self.open_run, self.open_run.options
        run.check_open()
        if options.journal is not None or run.log_dir is None:
            raise ValueError(
                "Several processes need a run folder to share, and this controller has "
                "none, or a journal= of its own. Give it log_dir= alone."
            )
        kept = {k: v for k, v in vars(options).items() if k not in _NOT_SHARED}
        initial = [None] * run.size
        return {**kept, "initial_population": initial, "log_dir": str(run.log_dir)}

    def close(self) -> None:
        """Close the journal. All reports are recorded already."""
        self.open_run.close()
