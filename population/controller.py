"""The controller: the two calls of a training loop, and queries of a run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from population.base.errors import ParamsError
from population.base.interfaces import Mutator, ParamsStore
from population.base.refusals import shortly
from population.base.run_paths import run_folder
from population.base.types import ActiveWorker, Stop
from population.core.retention import Keep
from population.core.step import EncodedReport
from population.journal.base import Journal
from population.reader.recorded_run import RecordedRun
from population.reader.sources import OfController
from population.run import arguments, opening, polls
from population.run.events import OnEvent
from population.run.population_lease import PopulationLease
from population.run.queries import Queries
from population.worker import Worker

logger = logging.getLogger("population")
# The options that another process of the run does not need, or has itself.
_NOT_SHARED = {"journal", "space", "on_event", "clock"}


class PopulationController(Queries):
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
        max_failures: After so many failures in a row, without a finite report between,
            a slot is retired: errors that a worker reports, processes that were killed,
            divergences. None: never.
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
        max_failures: int | None = 3,
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
            max_failures=max_failures,
            durability=durability,
            on_event=on_event,
            clock=clock,
        )
        folder = None if log_dir is None else run_folder(log_dir)
        super().__init__(opening.open_run(starts, options, folder))
        self.events = self.open_run.events

    @classmethod
    def from_space(
        cls,
        space: Any,
        size: int,
        mutator: Mutator[Any],
        log_dir: str | os.PathLike[str] | None = None,
        *,
        initial: str = "stratified",
        points: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> PopulationController:
        """Return a controller whose first meta_params are drawn from a space.

        Args:
            space: The space of valid meta_params: a tree of `population.space` domains.
            size: The number of slots.
            mutator: The policy; it explores, for example, by `Perturb(space)`.
            log_dir: The run folder, or None.
            initial: "stratified", random but evenly spread over the range of each
                domain (a Latin hypercube); "random"; or "grid" for `size` evenly spaced
                combinations of a few values of each domain.
            points: With "grid", the number of values of each domain, both ends included
                (a domain that lists its values may have fewer). The members are evenly
                spaced among all combinations of them; a warning tells if these are
                fewer than `size`. By default as few as give `size` combinations.
            seed: The seed of the run; the first meta_params depend on it.
            **options: Further arguments of the constructor.

        Raises:
            ValueError: The space has no domain, or an argument does not fit.
        """
        first = arguments.first_population(space, size, initial, seed, points)
        return cls(first, mutator, log_dir, seed=seed, space=space, **options)

    def history(self) -> RecordedRun:
        """Return the run as `population.read` does: columns, the best, and so on.

        Iterating over it yields all checkpoints in recorded order;
        `pandas.DataFrame` accepts them.
        """
        return RecordedRun(OfController(self.open_run))

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
            NoProgressError: No member makes progress, so that the run would never end.
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

    def fail(self, worker_id: int, reason: str) -> None:
        """Record that a trial of a slot has failed: it continues from its resume point.

        For raw loops; a `Worker` has the same method. After `max_failures` in a row the
        slot is retired.

        Args:
            worker_id: The slot.
            reason: What has happened, for people.

        Raises:
            NoProgressError: All slots are retired, because they failed too often.
        """
        polls.fail(self.open_run, worker_id, reason)

    def revive(self, worker_id: int) -> None:
        """Train a retired slot again, from its resume point; others are left alone."""
        polls.revive(self.open_run, worker_id)

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
                the free slot with the fewest failures in a row, and of these the one
                with the fewest steps; waits until there is one.
            stopped: An event that ends the loop; call `wake` after setting it.
        """
        return Worker(self.open_run, worker_id, stopped)

    def wake(self) -> None:
        """Wake waiting workers, so that they check whether they were stopped."""
        self.open_run.wake()

    def check_trainable(self) -> None:
        """Raise a JournalError if the run is closed or read-only."""
        self.open_run.check_open(to_train=True)

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
