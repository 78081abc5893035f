"""The lease of an engine that trains the whole population itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from population.base import codec
from population.base.errors import ClaimError, LostParamsError
from population.base.types import ActiveWorker, Checkpoint, InMemory
from population.core import leases, reachability
from population.core.decoding import decode
from population.core.facts import begun, is_own, texts_of
from population.core.known import check_id
from population.core.state import RunState
from population.core.step import EncodedReport, Step
from population.journal.records import Fact
from population.run import deadlock, loads, polls, rejecting
from population.run.leases import HeldSlots
from population.run.liveness import LeaseHolder
from population.run.open_run import OpenRun
from population.run.transaction import Transaction


class SlotWork(NamedTuple):
    """The present work of a slot.

    Attributes:
        generation_id: The slot's present generation.
        meta_params: The generation's hyperparameters; do not change them in place.
        newest: The checkpoint from which the slot continues.
        waits: Whether the slot waits for a decision or for the end of the run, or is
            retired.
        retired: Whether the slot is finished, unless it is revived.
    """

    generation_id: str
    meta_params: Any
    newest: Checkpoint
    waits: bool
    retired: bool = False


class PopulationLease(HeldSlots, Mapping[int, ActiveWorker]):
    """The lease of all slots: a mapping from worker ids to the work of each slot.

    After `release`, each method that records something raises a ClaimError. Once the
    controller is closed, each method that reads or records raises a JournalError.

    Weights may stay in the memory of the engine: it reports `InMemory()`. Before
    training overwrites any, the engine copies those that are `needed`; with its next
    reports it names those that are gone. Saved arrays stay in the params store: `load`
    reads them.

    Args:
        run: The run.
        again: Whether another loop of this controller may hold all slots already.

    Attributes:
        notices: Logs each warning of the run once.

    Raises:
        ClaimError: Another worker that may be alive holds a slot.
    """

    def __init__(self, run: OpenRun, *, again: bool = True) -> None:
        with run.lock.lock:  # Two threads may ask at once.
            if run.all_holder is not None and not again:
                raise ClaimError(
                    "This needs all slots, but another loop of this controller has "
                    "claimed them. End that loop first: a controller trains one "
                    "stacked population at a time."
                )
            super().__init__(run, run.all_holder or LeaseHolder(run.holder))
            self.notices = run.notices
            self._work = run.transact(self._claim)
            run.hold_all(self._holder)
        run.lock.drain()

    def __getitem__(self, worker_id: int) -> ActiveWorker:
        return self._work[worker_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._work)

    def __len__(self) -> int:
        return len(self._work)

    def __repr__(self) -> str:
        return f"PopulationLease({self._work!r})"

    @contextlib.contextmanager
    def view(self) -> Iterator[None]:
        """Keep other threads from changing the run within a `with` block."""
        with self._run.lock.lock:
            yield
        self._run.lock.drain()

    def slots(self) -> list[SlotWork]:
        """Return the present work of each slot, by worker id."""
        run = self._run
        with run.lock.lock:
            state = self._state()
            retired = state.members.retired
            return [
                SlotWork(
                    slot.generation.generation_id,
                    slot.meta_params,
                    slot.newest,
                    run.waits(worker_id),
                    worker_id in retired,
                )
                for worker_id, slot in enumerate(state.slots)
            ]

    def needed(self) -> frozenset[InMemory]:
        """Return weights in this memory that a decision or a restart may need.

        The engine must copy them before training overwrites them.
        """
        run = self._run
        with run.lock.lock:
            return reachability.needed_in_memory(
                self._state(), run.graph, run.decider, run.holder.owner.token
            )

    def encode(
        self,
        worker_id: int,
        generation_id: str,
        step: int,
        params: Any,
        value: Any,
        metrics: Any = None,
    ) -> EncodedReport:
        """Check a report and save its arrays; `report` records it.

        Args:
            worker_id: The slot.
            generation_id: The generation that was trained.
            step: The training steps of `params`.
            params: `InMemory()`, a path, a tree to save, or None.
            value: The result of the evaluation; None: not evaluated.
            metrics: Further figures, as plain data.

        Raises:
            TypeError, ValueError: An argument is invalid; nothing was saved.
        """
        self._check_held()
        place = worker_id, generation_id, step
        return self._run.encode(*place, params, value, metrics, plain=False)

    def report(
        self, new: Sequence[EncodedReport], *, gone: Collection[InMemory] = ()
    ) -> dict[int, ActiveWorker]:
        """Report checkpoints in one transaction.

        Args:
            new: The reports.
            gone: Weights that are not in this memory any more; recorded first. If some
                were still needed, their slots repeat the steps since earlier ones.

        Returns:
            The slots that now have other work.

        Raises:
            TypeError: `new` holds an object that `encode` did not return, or `gone`
                one that is not `InMemory`.
            ValueError: `gone` names weights that were never in this memory.
        """
        try:
            lost = self._checked(gone, new)
        except BaseException:
            self.undo([report for report in new if isinstance(report, EncodedReport)])
            raise

        def before(tx: Transaction) -> None:
            self._check_held()
            self._forget(tx, lost, new)

        return self._run.submit(new, self._holder, before)

    @property
    def reports(self) -> int:
        """The number of reports with a value so far."""
        with self._run.lock.lock:
            return self._state().reports

    @property
    def open_s(self) -> float:
        """The number of seconds that the run was open so far."""
        return self._run.session.seconds

    def undo(self, new: Sequence[EncodedReport]) -> None:
        """Remove the saves of encoded reports that were not recorded."""
        self._run.params.undo(new)

    def check_progress(self) -> None:
        """Raise a NoProgressError if no member makes progress; call after reports."""
        self._run.check_progress()

    def load(self, params: Any, like: Any = None) -> Any:
        """Return a checkpoint's params, read from the params store if it keeps them.

        Args:
            params: The params of a checkpoint. Not None: that stands for fresh weights.
            like: A tree with the wanted structure and kinds of leaves.

        Raises:
            ParamsError: They are None, were removed, are damaged, do not fit `like`, or
                are in the memory of a process.
        """
        self._run.check_open()
        return loads.of(self._run).params(params, like)

    def replace(self, error: LostParamsError) -> None:
        """Reject lost params, and move the slots that continue from them to others.

        Args:
            error: What `load` has raised.

        Raises:
            ParamsError: They may not be lost, as the store is not known to be this
                run's, or older ones of the same lineage are lost too.
        """
        self._check_held()
        slots = enumerate(self.slots())
        lost = {w: s.newest for w, s in slots if s.newest.params == error.params}
        if error.params is None or not lost:
            raise error
        for worker_id, newest in lost.items():
            rejecting.replace(self._run, worker_id, newest, error)

    def resume(self, worker_ids: Collection[int]) -> None:
        """Move slots back to saved weights: this process has none in memory."""
        self._check_held()
        ids = [check_id(self._run.size, worker_id) for worker_id in worker_ids]
        if not ids:
            return

        def work(tx: Transaction) -> None:
            self._check_held()
            for worker_id in ids:
                tx.resume(worker_id)

        self._run.transact(work)

    def unblock(self) -> None:
        """Have slots train to the end, or raise, if no decision can come any more.

        Raises:
            NoProgressError: All slots wait without end; the message names them, their
                steps, and the likely cause.
        """
        with self._run.lock.lock:
            self._check_held()
            deadlock.resolve(self._run, evaluators=False)

    def renew(self) -> None:
        """Renew the lease of each slot that this still holds, where that is due."""
        self._check_held()
        polls.renew(self._run, self._holder, range(self._run.size))

    def taken(self) -> list[int]:
        """Return the slots that other workers have claimed since."""
        with self._run.lock.lock:
            state = self._state()
            return [w for w in self if not leases.holds(state, self.text, w)]

    def firsts(self) -> list[Any]:
        """Return the meta_params that each slot of the run began with."""
        with self._run.lock.lock:
            found = begun(self._run.journal)
        return [decode(generation.meta_params) for generation in found]

    def facts(self, prefix: str = "") -> dict[str, Any]:
        """Return the facts of the run whose keys begin with a prefix."""
        with self._run.lock.lock:
            found = texts_of(self._run.journal)
        kept = {key: text for key, text in found.items() if key.startswith(prefix)}
        return {key: decode(text) for key, text in kept.items()}

    def record_fact(self, key: str, value: Any) -> None:
        """Record a fact of the run, unless the key has one already."""
        if is_own(key):
            raise ValueError(f"{key!r} is a fact of the library: choose another key.")
        fact = Fact(key, codec.encode(value, key))
        with self._run.lock.lock:
            self._check_held()
            if key not in texts_of(self._run.journal):
                self._run.transact(lambda tx: tx.do(Step((fact,))))
        self._run.lock.drain()

    @contextlib.contextmanager
    def refusing(self, check: Callable[[Any, int], object]) -> Iterator[None]:
        """Refuse branches that this engine cannot train, within a `with` block.

        Args:
            check: Called with a branch's meta_params and the worker id; raises.
        """
        self._run.decider.check = check
        try:
            yield
        finally:
            self._run.decider.check = None

    def release(self) -> None:
        """Give all slots back, and record that the weights in this memory are gone."""
        run = self._run
        if run.closed or run.all_holder is not self._holder:
            return

        def work(tx: Transaction) -> None:
            self._forget(tx, run.in_memory.recorded.values())
            for worker_id in range(run.size):
                tx.do(run.leases.release(tx.state, self.text, worker_id, tx.at))

        with run.lock.lock:
            run.transact(work)
            run.hold_all(None)
            self._holder.closed = True
        run.lock.drain()

    def _state(self) -> RunState:
        """Return the state of the run. Called with the lock.

        Raises:
            JournalError: The controller is closed.
        """
        self._run.check_open()
        return self._run.state()

    def _check_held(self) -> None:
        """Raise if the controller is closed or this lease was released."""
        self._run.check_open()
        if self._run.all_holder is not self._holder:
            raise ClaimError("This lease was released: claim all slots again.")

    def _checked(
        self, gone: Collection[InMemory], new: Sequence[EncodedReport]
    ) -> frozenset[InMemory]:
        """Return the recorded weights in `gone`, after a check of both arguments."""
        for report in new:
            if not isinstance(report, EncodedReport):
                raise TypeError(
                    "report needs a list of what encode returned, got "
                    f"{type(report).__name__} in it."
                )
        if isinstance(gone, (str, InMemory)):
            raise TypeError(f"gone must be a list of InMemory params, got {gone!r}.")
        own = self._run.holder.owner.token
        reported = {report.params for report in new if type(report.params) is InMemory}
        for params in gone:
            if type(params) is not InMemory:
                raise TypeError(f"gone must name InMemory params, got {params!r}.")
            known = (
                params.session == own
                and 0 < params.number <= self._run.in_memory.numbered
            )
            if not known or params in reported:
                raise ValueError(
                    f"gone must name params that this process has held, got {params!r}."
                    " A lease speaks for its own memory, of earlier reports."
                )
        return frozenset(gone).intersection(self._run.in_memory.recorded.values())

    def _claim(self, tx: Transaction) -> dict[int, ActiveWorker]:
        run, state, slots = self._run, tx.state, range(self._run.size)
        is_claimable = run.leases.is_claimable
        held = (leases.holds(state, self.text, w) for w in slots)
        if not all(own or is_claimable(state, w) for w, own in enumerate(held)):
            raise ClaimError(
                "claim_all needs every slot, and some are held: "
                f"{', '.join(leases.holders(state))}. End these workers first, or give "
                "this run another log_dir."
            )
        tx.claim_weights()
        # Weights of an earlier claim are gone; those of others are out of reach.
        self._forget(tx, run.in_memory.recorded.values())
        tx.do(reachability.lose(state, run.graph, run.decider, lambda held: True))
        for worker_id in slots:
            self._take(tx, worker_id, hand_out=True)
        return {worker_id: run.active(worker_id) for worker_id in slots}

    def _forget(
        self,
        tx: Transaction,
        gone: Collection[InMemory],
        new: Sequence[EncodedReport] = (),
    ) -> None:
        """Record that weights are in no memory any more."""
        if gone:
            run = self._run
            place = tx.state, run.graph, run.decider
            tx.do(reachability.forget(*place, gone, new))
