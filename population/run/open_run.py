"""A run that is open in this process: one lock, one transaction, effects afterwards.

A report is checked and encoded and its arrays are saved before the write lock is taken.
In the transaction, rules return the records of a change; each record is written and
applied to the state in memory. Effects (files to remove, events, lines of the log)
follow from the records after the commit. If anything fails, the journal rolls back, and
the next call loads the state again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from population.base import codec
from population.base.errors import JournalError, closed
from population.base.log_once import Notices
from population.base.types import ActiveWorker, Checkpoint, InMemory, Stop
from population.core import loading, reachability, reports
from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import LeaseRules, Silence
from population.core.state import RunState
from population.core.statuses import StatusRules
from population.core.step import EncodedReport, Moment
from population.in_force.probe import Probes
from population.journal.base import Journal
from population.journal.records import Lease, Status
from population.run import liveness, tidying
from population.run.arguments import Options
from population.run.deciding import Deciding
from population.run.events import Events
from population.run.guards import Guards
from population.run.liveness import LeaseHolder
from population.run.lock import RunLock
from population.run.params_manager import ParamsManager
from population.run.replacer import Record
from population.run.session import Session
from population.run.transaction import Transaction
from population.run.weights_in_memory import WeightsInMemory

Result = TypeVar("Result")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class OpenRun:
    """The run that the controller, workers and engines share. Safe for threads.

    Args:
        journal: The journal of the run.
        log_dir: The run folder, or None.
        options: The arguments of the controller.
        size: The number of slots.

    Attributes:
        params: Saves, loads and removes the params of the run.
        graph: All checkpoints.
        decider: Calls the mutator.
        status_rules: The rules for failures of slots.
        deciding: Records reports and applies the mutator's decisions.
        leases: The rules of leases.
        guards: End a run that would never end by itself.
        events: Calls `on_event`.
        notices: Logs each message about a hyperparameter or a generation once.
        probes: Caches which numbers of `init` depend on meta_params.
        lock: Guards all of this; its condition is notified of each change.
        holder: This process, as one that has opened the run.
        all_holder: The holder of all slots in this process, or None.
        reader: This session's token if slots may use weights in its memory, or None.
        session: Tells whether the run has ended; measures how long it was open.
        closed: Whether the run was closed.
        in_memory: The weights that an engine of this process reports as `InMemory()`.
    """

    def __init__(
        self,
        journal: Journal,
        log_dir: pathlib.Path | None,
        options: Options,
        size: int,
    ) -> None:
        self.journal = journal
        self.log_dir = log_dir
        self.options = options
        self.size = size
        self.seed, self.stop = options.seed, options.stop or Stop()
        self.clock = options.clock
        self.holder = LeaseHolder()
        self._pid, token = self.holder.owner.pid, self.holder.owner.token
        in_memory = options.journal is None and log_dir is None
        self.lock = RunLock()
        place = journal, self.lock.lock, log_dir, options.params
        self.params = ParamsManager(*place, in_memory, token)
        self.notices, self.probes = Notices(), Probes()
        self.graph = JournalGraph(journal, self.lock.lock, log_dir)
        fixed = options.mutator, self.graph, self.seed, self.stop.steps
        self.decider = Decider(*fixed)
        silence = Silence(options.worker_timeout, options.clock())
        self.leases = LeaseRules(silence, liveness.has_free_leases)
        limits = options.max_failures, options.mutator.divergence_fails
        self.status_rules = StatusRules(*limits)
        rules = self.decider, self.leases
        self.guards = Guards(journal, self.graph, *rules)
        self.deciding = Deciding(*rules, self.status_rules, self.guards)
        self.events = Events(options.on_event, self.lock)
        self.all_holder: LeaseHolder | None = None
        self.reader: str | None = None
        self.closed = False
        self.session = Session(options.clock)
        self._state: RunState | None = None
        self._transaction: weakref.ref[Transaction] | None = None
        self.in_memory = WeightsInMemory(token)

    def close(self) -> None:
        """Close the journal, and end every worker."""
        if not self.closed and os.getpid() == self._pid:
            with contextlib.suppress(Exception):  # Else the next session does it.
                self.tidy(only_if_due=True)
        with self.lock.lock:
            self.closed = self.holder.closed = True
            self.journal.close()
            self.lock.changed.notify_all()
        self.params.close()

    def check_open(self, *, to_train: bool = False) -> None:
        """Refuse a call on a run that was closed, or is read-only.

        Raises:
            JournalError: The run is closed or read-only; the message says what to do.
        """
        if self.closed:
            raise closed(self.log_dir)
        if to_train:
            self.journal.check_writable()

    def wake(self) -> None:
        """Wake every waiting worker, so that it checks the run again."""
        with self.lock.lock:
            self.lock.changed.notify_all()

    def state(self) -> RunState:
        """Return the state of the run, with all that other processes have recorded.

        Called with the lock. Within a transaction it includes the changes of that.
        """
        running = self._transaction and self._transaction()
        if running:
            return running.state
        if self.closed:
            if self._state is None:
                raise closed(self.log_dir)
            return self._state
        if os.getpid() != self._pid:
            raise RuntimeError(
                "A controller must not be used in a process that was forked from its "
                "own, nor its run be opened there: SQLite's locks do not hold in it. "
                "Begin such processes with spawn, as population.engines.processes "
                "does, or before the run is opened."
            )
        # None until this is done: an interrupt then makes the next call load all again,
        # as `changed` reports a change only once.
        state, self._state = self._state, None
        if self.journal.changed() or state is None:
            state = self._caught_up(state)
        self._state = state
        return state

    def adopt(self, state: RunState) -> None:
        """Use this state of the run, which was just opened."""
        self.leases.silence.look(self.clock())
        self.leases.silence.see(state.leases.values())
        self._state = state

    def hold_all(self, holder: LeaseHolder | None) -> None:
        """Note that this holder has the recorded lease of all slots; None: released."""
        self.all_holder = holder
        self.reader = None if holder is None else self.holder.owner.token

    def transact(
        self,
        work: Callable[[Transaction], Result],
        new: Sequence[EncodedReport] = (),
        *,
        tidies: bool = False,
        drains: bool = True,
    ) -> Result:
        """Run `work` in a transaction, which records all that it does, or nothing.

        Its effects follow when the lock is free: at once, unless the caller holds it.

        Args:
            work: The function to call with the transaction.
            new: The reports that it records.
            tidies: Whether to look for saves to remove in any case.
            drains: Whether to start the effects.
        """
        with self.lock.lock:
            if self.closed:
                self.check_open()
            if self._transaction and self._transaction():
                raise RuntimeError(
                    "A mutator must not call the controller while it decides: use the "
                    "view that it is given."
                )
            saved = [report for report in new if report.bytes is not None]
            tx = state = None
            transaction = self.journal.transaction()
            try:
                with transaction:
                    state = self.state()
                    self._state = None  # Dropped until the commit.
                    tx = self.begin(state)
                    self._transaction = weakref.ref(tx)
                    result = work(tx)
                    if tx.live is not state.members.live:
                        self.deciding.decide_pending(tx)
                    if saved or tidies:
                        needed = functools.partial(self.reachable, state)
                        self.params.sweep(tx, saved, needed, now=tidies)
            except BaseException as error:  # It may be a Ctrl-C at any line.
                transaction.__exit__(type(error), error, None)
                self._transaction = None
                if tx is None or tx.records:
                    self.graph.forget()  # It may have cached rows that are rolled back.
                else:
                    self._state = state  # Most refusals change nothing.
                raise
            self._transaction = None
            self._state = state
            if saved or tidies:
                self.lock.pending += self.params.after(tx, saved, self.drop)
                look = functools.partial(self.params.remove_leftovers, self.reachable)
                self.lock.pending.append(look)
            self._after(tx, new)
        if self.lock.pending and drains:
            self.lock.drain()
        return result

    def begin(self, state: RunState) -> Transaction:
        """Return a transaction that begins now, in an open one of the journal."""
        place = self.journal, state, self.graph, self.moment(state)
        rules = self.decider, self.status_rules
        tells = self.events.on_event is not None
        return Transaction(*place, *rules, tells, self.reader)

    def encode(self, *report: Any, plain: bool = True) -> EncodedReport:
        """Check and encode a report and save its arrays, before any lock is taken.

        Args:
            *report: In the argument order of `set_eval`.
            plain: Whether params must come back without a tree to compare them with.
        """
        if self.closed or self.journal.read_only:
            self.check_open(to_train=True)
        new = reports.check(self.size, self.graph.own, *report)
        if new.params_text is not None:
            return new
        if type(new.params) is InMemory:
            held = self.in_memory.number(new.params)
            return new._replace(params=held, params_text=codec.encode_params(held))
        has_tree = new.params is not None and type(new.params) is not str
        if has_tree and not reports.is_known(self._state, self.graph, new):
            return new._replace(params=None)  # It will be dropped: save nothing.
        try:
            return self.params.save(new, plain=plain)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with contextlib.suppress(JournalError):
                self.tidy()
        return self.params.save(new, plain=plain)

    def submit(
        self,
        new: Sequence[EncodedReport],
        holder: LeaseHolder | None = None,
        before: Callable[[Transaction], object] | None = None,
    ) -> dict[int, ActiveWorker]:
        """Record reports, ask the mutator and apply its branches: all or nothing.

        The saves of reports that are not recorded are removed.

        Args:
            new: The reports.
            holder: The holder that reports; None: the holder of all slots if there is
                one, else a raw loop.
            before: A function that records something before the reports.

        Returns:
            The slots that were branched, with their work.
        """
        by = holder or self.all_holder
        text = None if by is None else by.text

        def work(tx: Transaction) -> dict[int, ActiveWorker]:
            if before is not None:
                before(tx)
            branched = self.deciding.submit(tx, new, text)
            if tx.live is not tx.state.members.live:
                branched = {*branched, *self.deciding.decide_pending(tx)}
            return {w: self.active(w) for w in branched} if branched else {}

        if self.closed:
            self.params.forget(new)  # Else a later process would have to remove it.
        try:
            return self.transact(work, new)
        except BaseException:
            self.params.undo(new)
            raise

    def tidy(self, *, only_if_due: bool = False) -> None:
        """Remove all saves that nothing needs now, and wait for all removals."""
        if self.params.surplus.is_due or not only_if_due:
            self.transact(lambda tx: None, tidies=True)
        self.params.wait()

    def check_progress(self) -> None:
        """Raise a NoProgressError if no member makes progress."""
        state = self._state
        if state is None or not (
            self.guards.set_backs.is_counting or state.members.retired
        ):
            return
        with self.lock.lock:
            self.guards.check(self.state())

    def active(self, worker_id: int) -> ActiveWorker:
        """Return a slot's work, with the step at which it waits. Needs the lock."""
        state = self.state()
        wait_at = self.decider.wait_at(state, worker_id)
        return state.work(worker_id)._replace(wait_at=wait_at)

    def waits(self, worker_id: int) -> bool:
        """Whether a slot waits. Called with the lock."""
        return self.decider.waits(self.state(), worker_id)

    def finished(self) -> bool:
        """Whether `stop` has ended the run, or it was closed."""
        with self.lock.lock:
            if self.closed:
                return True
            state = self.state()
            if not self.session.has_ended(self.stop, state):
                return False
            self.events.finished()
        self.lock.drain()
        return True

    @property
    def drop(self) -> Record:
        """A function that records removals; it does not keep this alive."""
        return functools.partial(tidying.drop, weakref.ref(self))

    def reachable(self, state: RunState | None = None) -> dict[int, Checkpoint]:
        """Return the checkpoints whose params may still be needed, by row."""
        place = state or self.state(), self.graph
        found = reachability.reachable(*place, self.decider)
        return found | reachability.spares(*place, self.params.keep.spare)

    def moment(self, state: RunState) -> Moment:
        """Return the time of a transaction that begins now."""
        clock = self.clock()
        now = clock if state.time < clock < float("inf") else state.time
        return Moment(now, state.row + 1, clock)

    def _caught_up(self, state: RunState | None) -> RunState:
        """Apply what others have written; load all again where that is quicker."""
        # Time that passed before this is no silence of a slot that has changed.
        self.leases.silence.look(self.clock())
        with self.journal.reading():
            if state is None or not loading.catch_up(state, self.journal):
                state = loading.load(self.journal, self.graph, self.options.mode)
        self.leases.silence.see(state.leases.values())
        return state

    def _after(self, tx: Transaction, new: Sequence[EncodedReport]) -> None:
        """Start the effects of a committed transaction."""
        # First the effects that a Ctrl-C must not prevent.
        if tx.events:
            self.events.tell(tx.events)
        if self.in_memory.numbered:
            self.in_memory.note(tx, new)
        for note in tx.notes:
            self.notices.say_of_generation(*note)
        if tx.restarts or self.guards.set_backs.is_counting:
            statuses = (r for r in tx.records if isinstance(r, Status))
            failed = [r.worker_id for r in statuses if r.kind == "failed"]
            self.guards.set_backs.note(tx.state, tx.before, tx.restarts, failed)
        if new and self.guards.unmet.found:
            self.guards.unmet.keep()
        if self.leases.timeout is not None:
            self.leases.silence.see(r for r in tx.records if isinstance(r, Lease))
        self.lock.changed.notify_all()
