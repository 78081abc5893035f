"""A run that is open in this process: the transactions around polls and reports.

A report is checked and encoded and its arrays are saved; only then the write lock is
taken: catch up with what other processes wrote, record, decide, apply, commit. If
anything fails on the way, the journal rolls back, and what is kept of it in memory is
read anew at the next call.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from population.base import codec
from population.base.errors import closed
from population.base.interfaces import Mutator
from population.base.log_once import Notices
from population.base.types import ActiveWorker, Checkpoint, Held
from population.core import reports
from population.core.catching_up import catch_up
from population.core.decisions import Decisions
from population.core.graph import JournalGraph
from population.core.incoming import Incoming
from population.core.leases import Leases
from population.core.reachability import in_use
from population.core.retention import Keep
from population.core.slots import Slots
from population.core.stopping import ended
from population.in_force.probe import Probes
from population.journal.base import Journal
from population.run import intake, liveness
from population.run.claims import Claims
from population.run.events import Events
from population.run.guards import Guards
from population.run.held import Holdings
from population.run.liveness import Holder
from population.run.lock import Door
from population.run.options import Rules
from population.run.params_manager import Keeper
from population.run.sweeping import Sweeper

Result = TypeVar("Result")


class Session:
    """What the controller, its workers and the engines share. Safe for threads.

    Args:
        journal: Where the run is recorded.
        keeper: Keeps its params.
        mutator: The policy.
        log_dir: The run folder, or None.
        rules: What else is fixed while it is open.

    Attributes:
        held: Which weights that this process keeps itself still count.
        graph: All checkpoints.
        slots: What is known of each slot.
        decisions: The mutator at work.
        leases: Who trains which slot.
        claims: What workers do about that.
        guards: What ends a run that would go on for ever.
        events: Tells `on_event`.
        notices: Says which hyperparameters are not in force.
        probes: What `init` was found to make of meta_params.
        news: The lock that guards everything here; notified when something has changed.
        holder: This process, as one that has opened the run.
        open_s: Seconds that the run was open, up to `watched_at`.
        closed: Whether the run was closed.
    """

    def __init__(
        self,
        journal: Journal,
        keeper: Keeper,
        mutator: Mutator[Any],
        log_dir: pathlib.Path | None,
        rules: Rules,
    ) -> None:
        self.journal = journal
        self.keeper = keeper
        self.mutator = mutator
        self.rules = rules
        self.sweeper = Sweeper(keeper, rules.keep or Keep())
        self.log_dir = log_dir
        self.seed = rules.seed
        self.stop = rules.stop
        self._clock = rules.clock
        self.notices, self.probes = Notices(), Probes()
        self.news = Door()
        self.graph = JournalGraph(journal, self.news.lock, log_dir)
        self.slots = Slots(journal, self.graph, rules.mode)
        self.decisions = Decisions(
            mutator, journal, self.graph, self.slots, rules.seed, rules.stop
        )
        self.waits = self.decisions.waits
        self.guards = Guards(self)
        self.leases = Leases(
            journal, self.slots, self.waits, rules.clock, rules.worker_timeout
        )
        self.claims = Claims(self)
        self.events = Events(rules.on_event, self.news)
        self.holder = Holder()
        self.held = Holdings(self, self.holder.owner.token)
        self._stale = False
        self._behind = False
        self.closed = False
        self.watched_at = 0.0
        self.open_s = 0.0

    def close(self) -> None:
        """Close the journal, and end every worker."""
        with self.news.lock:
            self.closed = self.holder.closed = True
            self.journal.close()
            self.news.notify_all()
        self.keeper.close()

    def check_open(self, *, to_train: bool = False) -> None:
        """Refuse a call on a run that was closed, or can only be looked at.

        Raises:
            JournalError: Saying what to do.
        """
        if self.closed:
            raise closed(self.log_dir)
        if to_train:
            self.journal.check_writable()

    def wake(self) -> None:
        """Have every waiting worker look again."""
        with self.news.lock:
            self.news.notify_all()

    def check_id(self, worker_id: Any) -> int:
        """A worker id as an int of this population."""
        return self.slots.check_id(worker_id)

    def lose(self, worker_ids: Collection[int], *, remind: bool = False) -> None:
        """Say which slots are lost: they leave `view.live`, and decisions come without.

        Args:
            worker_ids: The slots.
            remind: Whether to ask the mutator again, as there may be no further report.
        """
        lost = {self.slots.check_id(worker_id) for worker_id in worker_ids}
        with self.news.lock:
            self.transact([], lambda: self.claims.lose(lost, remind=remind))
        self.news.drain()

    def claim_weights(self) -> None:
        """From now on the weights are the library's business."""
        with self.news.lock:
            self.check_open(to_train=True)
            if not self.graph.keeps_weights:
                self.transact([], self.note_claim)

    def note_claim(self) -> None:
        """Record that they are, within a transaction."""
        if not self.graph.keeps_weights:
            self.journal.add_fact("claimed", codec.encode(self.slots.row))

    def poll(
        self, worker_id: Any, generation_id: Any, step: Any, params: Any = None
    ) -> ActiveWorker | None:
        """The slot's work if it is not this generation; None to carry on."""
        if self.closed or self.journal.read_only:
            self.check_open(to_train=True)
        worker_id, step = self.slots.check_id(worker_id), codec.integer(step, "step")
        with self.news.lock:
            self.refresh()
            slot = self.slots[worker_id]
            generation = slot.generation
            current = generation_id == generation.generation_id
            if current:
                reports.check_step(generation, step)
                self.guards.idle.note(slot, step)
                if self.leases.timeout is None:
                    return None
            place = worker_id, generation_id, step
            own = not current and intake.supersedes(self, *place)
        if self.leases.timeout is not None:
            with self.news.lock:
                self.claims.alive(self.claims.of_all, worker_id)
                generation = self.slots[worker_id].generation
            self.news.drain()
            if generation_id == generation.generation_id:
                return None
        kept = None
        if own and params is not None and type(params) is not Held:
            kept = self.keeper.prepare(worker_id, generation_id, step, params)
        return self.resume(worker_id, kept)

    def resume(self, worker_id: int, kept: Incoming | None = None) -> ActiveWorker:
        """The slot at its resume point; a new generation if that lies further back.

        Args:
            worker_id: The slot.
            kept: Params of a superseded generation to record on the way.
        """
        with self.news.lock:
            self.refresh()
            newest, mine = self.slots[worker_id].newest, self.claims.of_all is not None
            there = mine or type(newest.params) is not Held
            if kept is None and there and self.graph.resume_point(newest) is newest:
                return self.active(worker_id)

            def work() -> None:
                if kept is not None:
                    reports.keep(self.slots, kept)
                self.go_back(worker_id, own=mine)

            self.transact([kept] if kept else [], work)
            found = self.active(worker_id)
        self.news.drain()
        return found

    def incoming(self, *report: Any, plain: bool = True) -> Incoming:
        """Check and encode a report and save its arrays, before any lock is taken.

        Args:
            *report: In the argument order of `set_eval`.
            plain: Whether params must come back without a tree to compare them with.
        """
        if self.closed or self.journal.read_only:
            self.check_open(to_train=True)
        return intake.check_and_save(self, *report, plain=plain)

    def check_progress(self) -> None:
        """After a commit: RuntimeError if no member makes progress."""
        with self.news.lock:
            self.guards.set_backs.check()

    def commit(
        self, incoming: Sequence[Incoming], holder: Holder | None = None
    ) -> dict[int, ActiveWorker]:
        """Record reports, decide and apply, all or nothing.

        Args:
            incoming: The reports.
            holder: The worker that reports; None: who has claimed all slots, or a
                raw loop.

        Returns:
            The slots that were branched, with their work.
        """
        holder = holder or self.claims.of_all

        def record_and_decide() -> Collection[int]:
            self.held.begin(incoming)
            self.claims.heard_of(incoming, holder)
            news = [reports.record(self.slots, new) for new in incoming]
            self.guards.unmet.check(incoming)
            self.events.reported(news)
            branched = self.decisions.decide(news)
            if branched:
                self.events.branched([self.slots[worker_id] for worker_id in branched])
            return branched

        with self.news.lock:
            branched = self.transact(incoming, record_and_decide)
            if self.slots.taken:
                self.news.later(lambda: self.sweeper.tidy(self))
            found = {worker_id: self.active(worker_id) for worker_id in branched}
        self.news.drain()
        return found

    def report(self, holder: Holder, *report: Any) -> float:
        """Report for a `Worker`; say how long it took without saving the params."""
        new = self.incoming(*report, plain=False)
        start = time.perf_counter()
        self.commit([new], holder)
        self.check_progress()
        return time.perf_counter() - start

    def workers(self) -> list[ActiveWorker]:
        """What each slot works on."""
        self.check_open()
        with self.news.lock:
            self.refresh()
            return [self.active(worker_id) for worker_id in range(len(self.slots))]

    def newest(self, worker_id: int) -> Checkpoint:
        """A slot's newest checkpoint."""
        self.check_open()
        with self.news.lock:
            self.refresh()
            return self.slots.newest(worker_id)

    def finished(self) -> bool:
        """Whether `stop` has ended the run, or it was closed."""
        with self.news.lock:
            if self.closed:
                return True
            self.refresh()
            before, self.watched_at = self.watched_at, self._clock()
            self.open_s += max(0.0, self.watched_at - before)  # A clock may go back.
            if not ended(self.stop, self.slots, self.open_s):
                return False
            self.events.finished()
        self.news.drain()
        return True

    def reachable(self) -> dict[int, Checkpoint]:
        """The checkpoints whose params may still be needed, by row."""
        self.check_open()
        with self.news.lock, self.journal.reading():
            self.refresh()
            return in_use(self)

    def transact(
        self, incoming: Sequence[Incoming], work: Callable[[], Result]
    ) -> Result:
        """Run `work`; all that it does and its arrays are recorded, or nothing."""
        if self.closed:
            self.check_open()
        fresh = [new for new in incoming if new.bytes is not None]
        before, held = None, self.held.mark()
        self._stale |= self.journal.abandon()  # What a Ctrl-C has cut short.
        try:
            with self.journal:
                self.refresh()
                before = self._mark()
                self.slots.begin(self._clock())
                result = work()
                self.held.settle(incoming)
                removed = self.sweeper.sweep(self) if self.slots.taken else []
        except BaseException:
            self.journal.abandon()
            self._stale |= before != self._mark()  # Most refusals change nothing.
            self.graph.forget()
            self.events.forget()
            self.sweeper.forget()
            self.held.restore(held)
            self.keeper.forget_unrecorded(fresh, self.graph)
            raise
        self.events.tell()
        self.guards.set_backs.note(incoming, self.slots.opened)
        self.news.notify_all()
        if fresh:
            self.keeper.forget(fresh, self.slots.taken)
            self.sweeper.drop(self, removed)
        return result

    def refresh(self) -> None:
        """Take in what other processes have recorded."""
        if self.closed:
            return
        liveness.check_not_forked(self.holder.owner.pid)
        self._behind |= self.journal.changed()
        if not (self._behind or self._stale):
            return
        whole, self._stale = self._stale, True  # Should this not come to its end.
        self.sweeper.forget()
        self.held.forget()
        with self.journal.reading():
            if whole or not catch_up(self.slots, self.decisions, self.leases):
                self.reload()
        self._stale = self._behind = False

    def reload(self) -> None:
        """Read from the journal all that is kept of it in memory."""
        self.slots.load()
        self.decisions.load()
        self.leases.load()
        self._stale = False

    def go_back(self, worker_id: int, reason: str = "", *, own: bool = False) -> None:
        """Open a generation at the slot's resume point if that lies further back.

        Args:
            worker_id: The slot.
            reason: Open one in any case, for this reason.
            own: Whether it may go on from what this process holds.
        """
        self.held.lapse_at(worker_id, own=own)
        slot = self.slots[worker_id]
        point = self.graph.resume_point(slot.newest)
        if reason or point.row != slot.newest.row:
            meta = slot.generation.meta_params
            self.slots.open(worker_id, point, meta, reason or "resume")

    def reject(self, checkpoint: Checkpoint, reason: str) -> None:
        """Record that params are damaged; called within a transaction."""
        self.sweeper.reject(self, checkpoint, reason)
        self.reload()
        self._stale = True  # Should this be rolled back.
        self.slots.begin(self._clock())

    def active(self, worker_id: int) -> ActiveWorker:
        """What a slot works on, and when it waits."""
        wait_at = self.decisions.wait_at(worker_id)
        return self.slots.work(worker_id)._replace(wait_at=wait_at)

    def _mark(self) -> tuple[object, ...]:
        """Changes with all that is kept in memory of the journal."""
        counts = self.decisions.count, self.leases.change, self.held.change
        return self.slots.row, self.slots.saved, self.slots.losses, *counts
