"""The controller: the two calls of a training loop, and the transaction around a report.

A report is checked and encoded, its arrays are saved, and only then is the write lock
taken: record, let the mutator decide, apply its branches, commit. If anything fails on
the way everything is rolled back, also what is kept in memory.
"""

from __future__ import annotations

import logging
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from population import codec, protocol, runs
from population.base import (
    ActiveWorker,
    Branch,
    Checkpoint,
    Mutator,
    ParamsStore,
    Ref,
    Report,
    Saved,
    Schedule,
    Start,
    Stop,
)
from population.errors import JournalError
from population.graph import CheckpointGraph
from population.journal import Journal
from population.journals.sqlite import SqliteJournal
from population.keeper import Keeper
from population.leases import Leases
from population.reachable import reachable, refs
from population.slots import Incoming, Slots
from population.view import View
from population.worker import Worker

logger = logging.getLogger("population")
JOURNAL_NAME = "journal.sqlite"


class PopulationController:
    """Decides, while a population trains, who goes on from what with which meta_params.

    Safe for threads. A run is resumed by constructing the controller again on the same
    `log_dir`; `initial_population` then only says how many workers there are.

    Args:
        initial_population: The meta_params of each worker, or a `Start` for one.
        mutator: The policy.
        log_dir: The run folder; made if it does not exist. None: nothing is kept.
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        seed: Of every random number of the run; an int of 0 or more.
        stop: When the run ends; None: never.
        params: Where arrays are saved; by default files in `log_dir`, or memory.
        journal: Where the run is recorded; by default SQLite in `log_dir`, or memory.
        clock: Gives seconds since the epoch.

    Raises:
        ValueError: If an argument is none that a run can have.
        TypeError: If meta_params or params cannot be stored; the place is named.
        JournalError: If the run folder cannot be used.
        RunMismatchError: If it holds a run with another size, mode, seed or mutator.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        entries = list(initial_population)
        runs.check_arguments(len(entries), mutator, mode, seed)
        starts = [e if isinstance(e, Start) else Start(e) for e in entries]
        metas = [
            codec.encode(start.meta_params, f"initial_population[{i}]")
            for i, start in enumerate(starts)
        ]
        self.seed = seed
        self.log_dir = None if log_dir is None else pathlib.Path(log_dir)
        self._mutator = mutator
        self._stop = stop or Stop()
        self._clock = clock
        in_memory = journal is None and log_dir is None
        self._keeper = Keeper(self.log_dir, params, in_memory)
        self._journal = journal or _open_journal(self.log_dir)
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self.graph = CheckpointGraph(self._journal, self._lock)
        self._slots = Slots(self._journal, self.graph, mode)
        self._view = View(self._slots, self.graph, seed, self._all_work)
        self._leases = Leases(self._news, self._slots, self._waits)
        self._state: Any = None
        self._decisions = 0
        self._stale = False
        self._warned = False
        try:
            self._open_run(starts, metas, mode)
        except BaseException:
            if journal is None:
                self._journal.close()
            raise

    def maybe_get_worker_data(
        self,
        worker_id: int,
        generation_id: str | None,
        step: int,
        params: Any,
        meta_params: Any,
    ) -> ActiveWorker | None:
        """Ask whether a worker has new work. Without news this costs microseconds.

        Args:
            worker_id: The slot.
            generation_id: What the worker trains; None or "" when it has just begun.
            step: The training steps of its params.
            params: What it trains, as in `set_eval`, or None. Kept if the slot has
                been branched meanwhile and they are not recorded yet.
            meta_params: The hyperparameters in use; not looked at.

        Returns:
            The slot's work, or None to carry on.

        Raises:
            TypeError, ValueError: If an argument is none of the kind; nothing changes.
        """
        del meta_params
        found = self._poll(worker_id, generation_id, step, params)
        return None if found is None else self._with_arrays(found)

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

        Safe to repeat. A value may come later, from anyone who names the checkpoint.

        Args:
            worker_id: The slot.
            generation_id: What the worker trains.
            step: The training steps of `params`.
            params: What training can go on from: a path, or a pytree of arrays, which
                is copied. None: nothing was saved.
            value: How good it is, or None if it was not evaluated.
            metrics: Further figures, as plain data.

        Raises:
            TypeError, ValueError: If an argument is none of the kind; nothing changes.
            JournalError: If it cannot be recorded.
            Exception: What the mutator raises; nothing was recorded then.
        """
        self.set_evals([(worker_id, generation_id, step, params, value, metrics)])

    def set_evals(self, reports: Iterable[tuple[Any, ...]]) -> dict[int, ActiveWorker]:
        """Report several checkpoints in one transaction.

        All are recorded first; then the mutator sees each in worker order, but those
        of slots that were branched earlier in the batch.

        Args:
            reports: Tuples in the argument order of `set_eval`.

        Returns:
            The slots that now have other work, by worker id.
        """
        incoming: list[Incoming] = []
        try:
            for report in reports:
                incoming.append(self._incoming(*report))
            branched = self._commit(incoming)
        finally:
            self._keeper.forget_unrecorded(incoming, self.graph)
        return {
            worker_id: self._with_arrays(self._active(worker_id))
            for worker_id in sorted(branched)
        }

    def worker(self, worker_id: int | None = None) -> Worker:
        """Claim a slot for one training loop.

        Args:
            worker_id: The slot to begin with, even if somebody holds it. None: the
                free slot with the fewest steps; waits until there is one.

        Returns:
            The loop's side of the protocol; used in a `with` statement it gives the
            slot back at the end.
        """
        return self._new_worker(worker_id, threading.Event())

    @property
    def workers(self) -> list[ActiveWorker]:
        """What each slot works on, by worker id; arrays are left in the params store."""
        with self._lock:
            self._refresh()
            return [self._active(worker_id) for worker_id in range(len(self._slots))]

    @property
    def finished(self) -> bool:
        """Whether `stop` has ended the run."""
        with self._lock:
            self._refresh()
            return self._is_finished()

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best finite value; None without one."""
        return self.graph.best()

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """All checkpoints that led to this one, from the root to itself."""
        return self.graph.lineage(checkpoint)

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """The hyperparameters over steps that led to a checkpoint."""
        return self.graph.schedule(checkpoint)

    def history(self) -> Iterator[Checkpoint]:
        """All checkpoints as they were recorded; `pandas.DataFrame` takes them."""
        return self.graph.history()

    def newest(self, worker_id: int) -> Checkpoint:
        """A slot's newest checkpoint."""
        worker_id = self._worker_id(worker_id)
        with self._lock:
            self._refresh()
            newest: Checkpoint = self._slots[worker_id].newest
            return newest

    def load(self, checkpoint: Checkpoint, like: Any = None) -> Any:
        """A checkpoint's params, read from the params store if it keeps them.

        Args:
            checkpoint: The checkpoint.
            like: A tree of the wanted structure and kinds of leaves, say from `init`.
                Not needed for plain containers of arrays.

        Raises:
            ParamsError: If they are missing, damaged, or do not fit `like`.
        """
        return self._keeper.load(checkpoint.params, like)

    def reachable(self) -> set[Ref]:
        """The checkpoints whose params a decision, a restart or a worker may need."""
        with self._lock:
            self._refresh()
            return {checkpoint.ref for checkpoint in self._reachable().values()}

    def close(self) -> None:
        """Close the journal. Everything is recorded already."""
        with self._lock:
            self._journal.close()

    # The rest is the library's own; `Worker` and the engines use some of it.

    def _open_run(self, starts: list[Start], metas: list[str], mode: str) -> None:
        run = runs.new_token()
        incoming: list[Incoming] = []
        if not self._journal.facts():
            incoming = [
                self._keeper.prepare(i, f"{run}-{i}-0", start.step, start.params)
                for i, start in enumerate(starts)
            ]
        with self._journal:
            now = runs.facts(self._mutator, len(starts), mode, self.seed, run)
            recorded = self._journal.facts()
            if recorded:
                runs.check(recorded, now)
                self._load()
            else:
                for key, text in now.items():
                    self._journal.add_fact(key, text)
                self._slots.begin(self._clock())
                self._slots.create(run, incoming, metas)
                self._state = self._mutator.init(self._view)
                self._journal.set_state(self._encoded_state(), 0)
                self._keeper.recorded(incoming)
            self._slots.begin(self._clock())
            self._opened = self._slots.time
            self._open_before = sum(
                end - begin for begin, end in self._journal.sessions()
            )
            self._journal.add_session(self._slots.row, self._opened)
        self._keeper.forget_unrecorded(incoming, self.graph)

    def _new_worker(self, worker_id: int | None, stopped: threading.Event) -> Worker:
        """Claim a slot for a loop that ends when `stopped` is set."""
        if worker_id is not None:
            worker_id = self._worker_id(worker_id)
        with self._lock:
            if not self.graph.keeps_weights:
                with self._journal:
                    self._journal.add_fact("claimed", codec.encode(True))
        return Worker(self, self._leases, self._news, worker_id, stopped)

    def _load(self) -> None:
        """Read from the journal what is kept of it in memory."""
        self._slots.load()
        recorded = self._journal.state()
        if recorded is None:
            raise JournalError(
                "The journal is damaged: it holds no state of the mutator. Restore it "
                "from a backup, or start a new run in another log_dir."
            )
        text, self._decisions = recorded
        # `init` is pure; what it returns tells the types that the text is read as.
        self._view.begin(0)
        self._state = codec.decode(text, type(self._mutator.init(self._view)))
        self._stale = False

    def _refresh(self) -> None:
        if self._journal.changed() or self._stale:
            self._load()

    def _worker_id(self, worker_id: Any) -> int:
        found = codec.integer(worker_id, "worker_id")
        if found >= len(self._slots):
            raise ValueError(
                f"worker_id must be below {len(self._slots)}, the size of the "
                f"population, got {found}."
            )
        return found

    def _poll(
        self, worker_id: int, generation_id: str | None, step: int, params: Any
    ) -> ActiveWorker | None:
        worker_id = self._worker_id(worker_id)
        step = codec.integer(step, "step")
        with self._lock:
            self._refresh()
            generation = self._slots[worker_id].generation
            if generation_id == generation.generation_id:
                protocol.check_step(generation, step)
                return None
            own = self._superseded(worker_id, generation_id, step)
        kept = None
        if own and params is not None:
            kept = self._keeper.prepare(worker_id, generation_id or "", step, params)
        return self._resume(worker_id, kept)

    def _superseded(self, worker_id: int, generation_id: Any, step: int) -> bool:
        """Whether this names an older generation of the worker, at a new step."""
        if generation_id is None or generation_id == "":
            return False
        generation = self._journal.generation(_generation_id(generation_id))
        if generation is None:
            self._slots.once(
                generation_id, "unknown generation; the slot was handed out"
            )
            return False
        if generation.worker_id != worker_id:
            return False
        protocol.check_step(generation, step)
        return self.graph.get_checkpoint(Ref(generation_id, step)) is None

    def _resume(
        self, worker_id: int, kept: Incoming | None = None, reason: str = ""
    ) -> ActiveWorker:
        """The slot at its resume point; a new generation if that lies further back.

        Args:
            worker_id: The slot.
            kept: Params of a superseded generation to record on the way.
            reason: Open a new generation in any case, for this reason.
        """
        with self._lock:
            self._refresh()
            newest = self._slots[worker_id].newest
            if not kept and not reason and self.graph.resume_point(newest) is newest:
                return self._active(worker_id)
            try:
                with self._journal:
                    self._refresh()
                    self._slots.begin(self._clock())
                    if kept is not None and protocol.keep(self._slots, kept):
                        self._keeper.recorded([kept])
                    slot = self._slots[worker_id]
                    point = self.graph.resume_point(slot.newest)
                    if reason or point.row != slot.newest.row:
                        meta = slot.generation.meta_params
                        self._slots.open(worker_id, point, meta, reason or "resume")
                    removed = self._sweep()
            except BaseException:
                self._stale = True
                raise
            finally:
                self._keeper.forget_unrecorded([kept] if kept else [], self.graph)
            self._keeper.drop(removed)
            self._news.notify_all()
            return self._active(worker_id)

    def _incoming(
        self,
        worker_id: Any,
        generation_id: Any,
        step: Any,
        params: Any,
        value: Any,
        metrics: Any = None,
        *,
        plain: bool = True,
    ) -> Incoming:
        """Check and encode a report and save its arrays, before any lock is taken."""
        worker_id = self._worker_id(worker_id)
        generation_id = _generation_id(generation_id)
        step = codec.integer(step, "step")
        value = codec.number(value)
        text = None if metrics is None else codec.encode(metrics, "metrics")
        new = self._keeper.prepare(worker_id, generation_id, step, params, plain=plain)
        if value is None and text is None:
            return new
        metrics = None if text is None else codec.decode(text)
        return new._replace(value=value, metrics=metrics, metrics_text=text)

    def _report(self, *report: Any) -> float:
        """Report for a `Worker`; say how long it took without saving the params."""
        new = self._incoming(*report, plain=False)
        start = time.perf_counter()
        try:
            self._commit([new])
        finally:
            self._keeper.forget_unrecorded([new], self.graph)
        return time.perf_counter() - start

    def _commit(self, incoming: Sequence[Incoming]) -> Collection[int]:
        """Record reports, decide and apply in one transaction; say who was branched."""
        with self._lock:
            try:
                with self._journal:
                    self._refresh()
                    self._slots.begin(self._clock())
                    reports = [protocol.record(self._slots, new) for new in incoming]
                    branched = self._decide(reports)
                    self._keeper.recorded(incoming)
                    removed = self._sweep()
            except BaseException:
                self._stale = True
                raise
            self._keeper.drop(removed)
            self._news.notify_all()
            return branched

    def _decide(self, reports: list[Report | None]) -> Collection[int]:
        """Run the mutator on each report, in worker order, and apply its branches."""
        due = [report for report in reports if report is not None]
        if len(due) > 1:
            due.sort(key=lambda report: report.worker_id)
        branched: set[int] = set()
        before = self._decisions
        for report in due:
            if report.worker_id in branched:
                continue
            self._view.begin(self._decisions + 1)
            state, branches = self._mutator.update(self._state, report, self._view)
            if branches or state is not self._state:
                self._state = state
                self._decisions += 1
                for worker_id, branch in sorted(branches.items()):
                    self._apply(worker_id, branch)
                    branched.add(worker_id)
        if self._decisions != before:
            self._journal.set_state(self._encoded_state(), self._decisions)
        return branched

    def _apply(self, worker_id: Any, branch: Branch) -> None:
        worker_id = self._worker_id(worker_id)
        if not isinstance(branch, Branch):
            raise TypeError(
                f"{type(self._mutator).__name__}.update must return a Branch for worker "
                f"{worker_id}, got {type(branch).__name__}."
            )
        meta = codec.encode(branch.meta_params, f"meta_params for worker {worker_id}")
        point = None
        if branch.parent is not None:
            point = self.graph.resume_point(branch.parent)
        if self.graph.keeps_weights and not self._slots.saved and not self._warned:
            self._warned = True
            logger.warning(
                "A branch begins with fresh weights: no worker has saved any. Pass the "
                "training state to worker.report(value, state)."
            )
        self._slots.open(worker_id, point, meta, branch.reason)

    def _encoded_state(self) -> str:
        return codec.encode(self._state, "the mutator's state")

    def _active(self, worker_id: int) -> ActiveWorker:
        return self._work(worker_id)._replace(wait_at=self._wait_at(worker_id))

    def _work(self, worker_id: int) -> ActiveWorker:
        slot = self._slots[worker_id]
        meta_params = codec.decode(slot.generation.meta_params)
        ref = slot.newest.ref
        return ActiveWorker(
            slot.newest.params, meta_params, ref.generation_id, ref.step
        )

    def _all_work(self) -> list[ActiveWorker]:
        """What a mutator sees of the slots; when they wait is for it to say."""
        return [self._work(worker_id) for worker_id in range(len(self._slots))]

    def _with_arrays(self, active: ActiveWorker) -> ActiveWorker:
        return active._replace(params=self._keeper.load(active.params))

    def _wait_at(self, worker_id: int) -> int | None:
        limit = self._mutator.wait_at(self._state, worker_id, self._view)
        if limit is None or self._stop.steps is None:
            return self._stop.steps if limit is None else limit
        return min(limit, self._stop.steps)

    def _waits(self, worker_id: int) -> bool:
        limit = self._wait_at(worker_id)
        return limit is not None and bool(self._slots.ready[worker_id] >= limit)

    def _is_finished(self) -> bool:
        stop, slots = self._stop, self._slots
        if stop.steps is not None and slots.ready.min() >= stop.steps:
            return True
        if stop.reports is not None and slots.reports >= stop.reports:
            return True
        if stop.value is not None and slots.best <= slots.as_score(stop.value):
            return True
        if stop.patience is not None and slots.best < math.inf:
            if slots.reports - slots.best_reports >= stop.patience:
                return True
        if stop.seconds is None:
            return False
        return self._open_before + self._clock() - self._opened >= stop.seconds

    def _reachable(self) -> dict[int, Checkpoint]:
        starts = [slot.newest for slot in self._slots]
        starts += map(self.graph.checkpoint, refs(self._state))
        best = self.graph.best()
        starts += [] if best is None else [best]
        for worker_id in range(len(self._slots)):
            limit = self._wait_at(worker_id)
            undecided = None if limit is None else self._slots.barrier(worker_id, limit)
            starts += [] if undecided is None else [undecided]
        return reachable(self.graph, starts)

    def _sweep(self) -> list[str]:
        """Record the removal of arrays in memory that nothing can reach any more."""
        removed = self._keeper.droppable(lambda: self._reachable().values())
        for path in removed:
            self._journal.add_removal(self._slots.row, codec.encode(Saved(path)))
        return removed


def _open_journal(log_dir: pathlib.Path | None) -> Journal:
    if log_dir is None:
        return SqliteJournal()
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"log_dir must be a folder that can be written to, got {log_dir}: "
            f"{error.strerror}. Choose another one."
        ) from error
    return SqliteJournal(log_dir / JOURNAL_NAME)


def _generation_id(generation_id: Any) -> str:
    if not isinstance(generation_id, str):
        raise TypeError(
            "generation_id must be the str that the poll handed out, got "
            f"{type(generation_id).__name__}."
        )
    return generation_id
