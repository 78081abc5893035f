"""A run that is open in this process: the transactions around polls and reports.

A report is checked and encoded and its arrays are saved; only then the write lock is
taken: record, decide, apply, commit. If anything fails on the way, the journal rolls
back, and what is kept of it in memory is read anew at the next call.
"""

from __future__ import annotations

import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from population import codec, protocol, runs
from population.base import ActiveWorker, Checkpoint, Mutator, Ref, Saved, Start, Stop
from population.decisions import Decisions
from population.graph import CheckpointGraph
from population.journal import Journal
from population.keeper import Keeper
from population.leases import Leases
from population.reachable import reachable, refs
from population.slots import Incoming, Slots

Result = TypeVar("Result")


class Session:
    """What the controller, its workers and the engines share. Safe for threads.

    Args:
        journal: Where the run is recorded.
        keeper: Keeps its params.
        mutator: The policy.
        log_dir: The run folder, or None.
        mode: "min" or "max".
        seed: The run's seed.
        stop: When the run ends.
        clock: Gives seconds since the epoch.

    Attributes:
        graph: All checkpoints.
        leases: Who trains which slot.
        news: Notified when something has changed; its lock guards everything here.
    """

    def __init__(
        self,
        journal: Journal,
        keeper: Keeper,
        mutator: Mutator[Any],
        log_dir: pathlib.Path | None,
        mode: str,
        seed: int,
        stop: Stop,
        clock: Callable[[], float],
    ) -> None:
        self.journal = journal
        self.keeper = keeper
        self.log_dir = log_dir
        self.seed = seed
        self.stop = stop
        self._mutator = mutator
        self._mode = mode
        self._clock = clock
        self._lock = threading.RLock()
        self.news = threading.Condition(self._lock)
        self.graph = CheckpointGraph(journal, self._lock)
        self._slots = Slots(journal, self.graph, mode)
        self._decisions = Decisions(
            mutator, journal, self.graph, self._slots, seed, stop
        )
        self.waits = self._decisions.waits
        self.leases = Leases(self.news, self._slots, self.waits)
        self._stale = False
        self._closed = False
        self._opened = 0.0
        self._open_before = 0.0

    def open(self, starts: Sequence[Start], metas: Sequence[str], space: Any) -> None:
        """Go on with the run that the journal holds, or make a new one.

        Args:
            starts: Where each slot begins.
            metas: The meta_params of `starts`, encoded.
            space: What the meta_params may be, or None.

        Raises:
            RunMismatchError: If the journal holds a run under other rules.
        """
        run = runs.new_token()
        incoming: list[Incoming] = []
        if not self.journal.facts():
            runs.check_within(space, starts)
            incoming = [
                self.keeper.prepare(i, f"{run}-{i}-0", start.step, start.params)
                for i, start in enumerate(starts)
            ]
        try:
            self._open(run, incoming, metas, space)
        finally:
            self.keeper.forget_unrecorded(incoming, self.graph)

    def close(self) -> None:
        """Close the journal, and end every worker."""
        with self.news:
            self._closed = True
            self.journal.close()
            self.news.notify_all()

    def wake(self) -> None:
        """Have every waiting worker look again."""
        with self.news:
            self.news.notify_all()

    def check_id(self, worker_id: Any) -> int:
        """A worker id as an int of this population."""
        return self._slots.check_id(worker_id)

    def lose(self, worker_ids: Collection[int]) -> None:
        """Say which slots are lost: they leave `view.live`, and hold nobody up."""
        lost = {self._slots.check_id(worker_id) for worker_id in worker_ids}
        with self._lock:
            self._slots.lose(lost)

    def claim_weights(self) -> None:
        """From now on the weights are the library's business."""
        with self._lock:
            if not self.graph.keeps_weights:
                with self.journal:
                    self.journal.add_fact("claimed", codec.encode(True))

    def poll(
        self, worker_id: Any, generation_id: Any, step: Any, params: Any = None
    ) -> ActiveWorker | None:
        """The slot's work if it is not this generation; None to carry on."""
        worker_id = self._slots.check_id(worker_id)
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
            kept = self.keeper.prepare(worker_id, generation_id, step, params)
        return self.resume(worker_id, kept)

    def resume(
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

            def go_back() -> None:
                if kept is not None:
                    protocol.keep(self._slots, kept)
                slot = self._slots[worker_id]
                point = self.graph.resume_point(slot.newest)
                if reason or point.row != slot.newest.row:
                    meta = slot.generation.meta_params
                    self._slots.open(worker_id, point, meta, reason or "resume")

            self._transact([kept] if kept else [], go_back)
            return self._active(worker_id)

    def incoming(
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
        worker_id = self._slots.check_id(worker_id)
        generation_id = _generation_id(generation_id)
        step = codec.integer(step, "step")
        value = codec.number(value)
        text = None if metrics is None else codec.encode(metrics, "metrics")
        metrics = None if text is None else codec.decode(text)
        if params is not None and type(params) is not str:
            with self._lock:
                if self.journal.generation(generation_id) is None:
                    params = None  # The report will be dropped: save nothing for it.
        return self.keeper.prepare(
            worker_id, generation_id, step, params, value, metrics, text, plain=plain
        )

    def commit(self, incoming: Sequence[Incoming]) -> dict[int, ActiveWorker]:
        """Record reports, decide and apply, all or nothing.

        Returns:
            The slots that were branched, with their work.
        """

        def record_and_decide() -> Collection[int]:
            reports = [protocol.record(self._slots, new) for new in incoming]
            return self._decisions.decide(reports)

        with self._lock:
            branched = self._transact(incoming, record_and_decide)
            return {worker_id: self._active(worker_id) for worker_id in branched}

    def report(self, *report: Any) -> float:
        """Report for a `Worker`; say how long it took without saving the params."""
        new = self.incoming(*report, plain=False)
        start = time.perf_counter()
        self.commit([new])
        return time.perf_counter() - start

    def workers(self) -> list[ActiveWorker]:
        """What each slot works on."""
        with self._lock:
            self._refresh()
            return [self._active(worker_id) for worker_id in range(len(self._slots))]

    def newest_work(self, worker_id: int) -> ActiveWorker:
        """What a slot works on."""
        with self._lock:
            self._refresh()
            return self._active(worker_id)

    def newest(self, worker_id: int) -> Checkpoint:
        """A slot's newest checkpoint."""
        with self._lock:
            self._refresh()
            newest: Checkpoint = self._slots[worker_id].newest
            return newest

    def finished(self) -> bool:
        """Whether `stop` has ended the run, or it was closed."""
        with self._lock:
            if self._closed:
                return True
            self._refresh()
            stop, slots = self.stop, self._slots
            if stop.steps is not None and slots.ready.min() >= stop.steps:
                return True
            if stop.reports is not None and slots.reports >= stop.reports:
                return True
            if stop.value is not None and slots.best <= slots.as_score(stop.value):
                return True
            since_best = slots.reports - slots.best_reports
            if stop.patience is not None and since_best >= stop.patience:
                return True
            if stop.seconds is None:
                return False
            return self._open_before + self._clock() - self._opened >= stop.seconds

    def space(self) -> Any:
        """What the meta_params may be, as recorded; None if nobody said."""
        with self._lock:
            return runs.recorded_space(self.journal.facts())

    def reachable(self) -> dict[int, Checkpoint]:
        """The checkpoints whose params may still be needed, by row."""
        with self._lock:
            self._refresh()
            return self._reachable()

    def _transact(
        self, incoming: Sequence[Incoming], work: Callable[[], Result]
    ) -> Result:
        """Run `work`; all that it does and its arrays are recorded, or nothing."""
        fresh = [new for new in incoming if new.fresh]
        try:
            with self.journal:
                self._refresh()
                self._slots.begin(self._clock())
                result = work()
                removed = self._sweep()
        except BaseException:
            self._stale = True
            self.graph.forget()
            raise
        finally:
            if fresh:
                self.keeper.forget_unrecorded(fresh, self.graph)
        if fresh:
            self.keeper.recorded(fresh, self.graph)
        if removed:
            self.keeper.drop(removed)
        self.news.notify_all()
        return result

    def _open(
        self, run: str, incoming: Sequence[Incoming], metas: Sequence[str], space: Any
    ) -> None:
        with self.journal:
            now = runs.facts(self._mutator, len(metas), self._mode, self.seed, run)
            recorded = self.journal.facts()
            if recorded:
                runs.check(recorded, now)
                self._load()
            else:
                for key, text in now.items():
                    self.journal.add_fact(key, text)
                self._slots.begin(self._clock())
                self._slots.create(run, incoming, metas)
                self._decisions.begin()
                self.keeper.recorded(incoming, self.graph)
            runs.record_space(self.journal, recorded, space)
            self._slots.begin(self._clock())
            self._opened = self._slots.time
            sessions = self.journal.sessions()
            self._open_before = sum(end - begin for begin, end in sessions)
            self.journal.add_session(self._slots.row, self._opened)

    def _load(self) -> None:
        """Read from the journal what is kept of it in memory."""
        self._slots.load()
        self._decisions.load()
        self._stale = False

    def _refresh(self) -> None:
        if self.journal.changed():
            self._stale = True
        if self._stale:
            self._load()

    def _superseded(self, worker_id: int, generation_id: Any, step: int) -> bool:
        """Whether this names an older generation of the worker, at a new step."""
        if generation_id is None or generation_id == "":
            return False
        generation = self.journal.generation(_generation_id(generation_id))
        if generation is None:
            what = "is unknown; the slot was handed out"
            self._slots.once(generation_id, what)
            return False
        if generation.worker_id != worker_id:
            return False
        protocol.check_step(generation, step)
        return self.graph.get_checkpoint(Ref(generation_id, step)) is None

    def _active(self, worker_id: int) -> ActiveWorker:
        wait_at = self._decisions.wait_at(worker_id)
        return self._slots.work(worker_id)._replace(wait_at=wait_at)

    def _reachable(self) -> dict[int, Checkpoint]:
        starts = [slot.newest for slot in self._slots]
        starts += map(self.graph.checkpoint, refs(self._decisions.state))
        starts += self.leases.handed_out()
        best = self.graph.best()
        starts += [] if best is None else [best]
        barriers = list(self._barriers())
        found = reachable(self.graph, starts + barriers)
        # A round may rest on a checkpoint that diverged; it must not lose its params.
        found.update({c.row: c for c in barriers if c.params is not None})
        return found

    def _barriers(self) -> Iterator[Checkpoint]:
        """The checkpoints that undecided rounds, and the end of the run, rest on."""
        for worker_id in range(len(self._slots)):
            for limit in self._decisions.limits(worker_id):
                found = self._slots.barrier(worker_id, limit)
                if found is not None:
                    yield found

    def _sweep(self) -> list[str]:
        """Record the removal of arrays in memory that nothing can reach any more."""
        removed = self.keeper.droppable(lambda: self._reachable().values())
        for path in removed:
            self.journal.add_removal(self._slots.row, codec.encode(Saved(path)))
        return removed


def _generation_id(generation_id: Any) -> str:
    if not isinstance(generation_id, str):
        raise TypeError(
            "generation_id must be the str that the poll handed out, got "
            f"{type(generation_id).__name__}."
        )
    return generation_id
