"""The lease of an engine that trains the whole population itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from population.base import codec
from population.base.errors import ClaimError
from population.base.log_once import Notices
from population.base.types import ActiveWorker, Checkpoint, InMemory
from population.core import leases, reachability
from population.core.decoding import decode
from population.core.facts import begun, is_own, texts_of
from population.core.known import check_id
from population.core.state import RunState
from population.core.step import EncodedReport, Step
from population.journal.records import Fact
from population.run import deadlock
from population.run.leases import grace_of, note_claim
from population.run.liveness import LeaseHolder
from population.run.open_run import OpenRun
from population.run.transaction import Transaction


class SlotWork(NamedTuple):
    """What a slot trains.

    Attributes:
        generation_id: Its present generation.
        meta_params: The generation's hyperparameters; not to be changed.
        newest: The checkpoint from which it continues.
        waits: Whether it waits for a decision, or for the end of the run.
    """

    generation_id: str
    meta_params: Any
    newest: Checkpoint
    waits: bool


class PopulationLease(Mapping[int, ActiveWorker]):
    """Every slot under one lease: the work of each, by worker id.

    After `release`, whatever would record something raises a ClaimError. Once the
    controller is closed, whatever reads or records raises a JournalError.

    Weights may stay in the memory of the engine: it reports `InMemory()`. Before
    training overwrites any, it sets aside those that are `needed`; with its next
    reports it names those that are gone. Saved arrays stay in the params store: `load`
    reads them.

    Args:
        run: The run.
        again: Whether a loop of this very process may have claimed all slots before.

    Raises:
        ClaimError: Another worker that may be alive holds a slot.
    """

    def __init__(self, run: OpenRun, *, again: bool = True) -> None:
        self._run = run
        with run.lock.lock:  # Two threads may ask at once.
            if run.all_holder is not None and not again:
                raise ClaimError(
                    "This needs all slots, but another loop of this controller has "
                    "claimed them. End that loop first: a controller trains one "
                    "stacked population at a time."
                )
            self._holder = run.all_holder or LeaseHolder(run.holder)
            lost = frozenset(run.in_memory)
            self._work = run.transact(lambda tx: self._claim(tx, lost))
            run.all_holder = self._holder
            run.in_memory -= lost
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
        """Within it, no other thread changes what is known of the run."""
        with self._run.lock.lock:
            yield
        self._run.lock.drain()

    def slots(self) -> list[SlotWork]:
        """What each slot trains now, by worker id."""
        run = self._run
        with run.lock.lock:
            return [
                SlotWork(
                    slot.generation.generation_id,
                    slot.meta_params,
                    slot.newest,
                    run.waits(worker_id),
                )
                for worker_id, slot in enumerate(self._state().slots)
            ]

    def needed(self) -> frozenset[InMemory]:
        """Weights in this memory that a decision or a restart may need.

        They have to be set aside before training overwrites them.
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
            generation_id: What was trained.
            step: The training steps of `params`.
            params: `InMemory()`, a path, a tree to save, or None.
            value: How good it is; None: not evaluated.
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
            gone: Weights that are not in this memory any more, which is recorded first.
                Those that were needed after all cost the steps since others.

        Returns:
            The slots that now have other work.

        Raises:
            TypeError: `new` holds what `encode` did not return, or `gone` what is not
                `InMemory`.
            ValueError: `gone` names what was never in this memory.
        """
        run, lost = self._run, self._checked(gone, new)

        def before(tx: Transaction) -> None:
            self._check_held()
            self._forget(tx, lost, new)

        found = run.submit(new, self._holder, before)
        with run.lock.lock:
            run.in_memory -= lost
        return found

    @property
    def reports(self) -> int:
        """How many reports with a value there are so far."""
        with self._run.lock.lock:
            return self._state().reports

    @property
    def open_s(self) -> float:
        """For how many seconds the run was open so far."""
        return self._run.open_time.seconds

    @property
    def notices(self) -> Notices:
        """Logs each warning of the run once."""
        return self._run.notices

    def undo(self, new: Sequence[EncodedReport]) -> None:
        """Remove what was saved for reports that were then not made."""
        self._run.undo(new)

    def check_progress(self) -> None:
        """After reports: RuntimeError if no member makes progress."""
        self._run.check_progress()

    def load(self, params: Any, like: Any = None) -> Any:
        """A checkpoint's params, read from the params store if it keeps them."""
        self._run.check_open()
        return self._run.params.load(params, like)

    def resume(self, worker_ids: Collection[int]) -> None:
        """Have slots go back to what is saved: their weights are in no memory."""
        self._check_held()
        ids = [check_id(self._run.size, worker_id) for worker_id in worker_ids]
        if not ids:
            return

        def work(tx: Transaction) -> None:
            self._check_held()
            for worker_id in ids:
                tx.resume(worker_id, None)

        with self._run.lock.lock:
            self._run.transact(work)
        self._run.lock.drain()

    def unblock(self) -> None:
        """If all slots wait for a decision that cannot come, train on or raise.

        Raises:
            RuntimeError: Naming the slots, their steps, and the likely cause.
        """
        with self._run.lock.lock:
            self._check_held()
            deadlock.resolve(self._run, evaluators=False)

    def renew(self) -> None:
        """Renew the lease, where that is due."""
        run, rules = self._run, self._run.leases

        def work(tx: Transaction) -> None:
            for worker_id in due:
                if leases.holds(tx.state, self._holder.text, worker_id):
                    place = self._holder.text, worker_id, tx.at
                    tx.do(rules.renew(tx.state, *place))

        with run.lock.lock:
            self._check_held()
            state = run.state()
            slots = range(len(state.slots)) if rules.timeout is not None else ()
            due = [w for w in slots if rules.due(state, w, run.clock())]
            if due:
                run.transact(work)
        run.lock.drain()

    def taken(self) -> list[int]:
        """The slots that other workers have taken since."""
        text = self._holder.text
        with self._run.lock.lock:
            state = self._state()
            slots = range(len(state.slots))
            return [w for w in slots if not leases.holds(state, text, w)]

    def firsts(self) -> list[Any]:
        """The meta_params that each slot of the run began with."""
        with self._run.lock.lock:
            found = begun(self._run.journal)
        return [decode(generation.meta_params) for generation in found]

    def facts(self, prefix: str = "") -> dict[str, Any]:
        """What is fixed about the run, under names that begin so."""
        with self._run.lock.lock:
            found = texts_of(self._run.journal)
        kept = {key: text for key, text in found.items() if key.startswith(prefix)}
        return {key: decode(text) for key, text in kept.items()}

    def record_fact(self, key: str, value: Any) -> None:
        """Record something that is fixed about the run from now on, once."""
        if is_own(key):
            raise ValueError(f"{key!r} is a fact of the library: choose another key.")
        fact = Fact(key, codec.encode(value, key))
        with self._run.lock.lock:
            if key not in texts_of(self._run.journal):
                self._run.transact(lambda tx: tx.do(Step((fact,))))
        self._run.lock.drain()

    @contextlib.contextmanager
    def refusing(self, check: Callable[[Any, int], object]) -> Iterator[None]:
        """Have branches refused that this engine could not train.

        Args:
            check: Gets a branch's meta_params and the worker id, and raises.
        """
        self._run.decider.check = check
        try:
            yield
        finally:
            self._run.decider.check = None

    def release(self) -> None:
        """Give all slots back; what only this process had is gone."""
        run, text = self._run, self._holder.text
        if run.closed or run.all_holder is not self._holder:
            return
        lost = frozenset(run.in_memory)

        def work(tx: Transaction) -> None:
            self._forget(tx, lost)
            for worker_id in range(len(tx.state.slots)):
                tx.do(run.leases.release(tx.state, text, worker_id, tx.at))

        with run.lock.lock:
            run.transact(work)
            run.all_holder, self._holder.closed = None, True
            run.in_memory -= lost
        run.lock.drain()

    def _state(self) -> RunState:
        """What is known of the run. Called with the lock.

        Raises:
            JournalError: The controller is closed.
        """
        self._run.check_open()
        return self._run.state()

    def _check_held(self) -> None:
        """Refuse to record anything for slots that were given back."""
        self._run.check_open()
        if self._run.all_holder is not self._holder:
            raise ClaimError("This lease was released: claim all slots again.")

    def _checked(
        self, gone: Collection[InMemory], new: Sequence[EncodedReport]
    ) -> frozenset[InMemory]:
        """Weights that may be named as gone by these reports."""
        for report in new:
            if not isinstance(report, EncodedReport):
                raise TypeError(
                    "report needs a list of what encode returned, got "
                    f"{type(report).__name__} in it."
                )
        if isinstance(gone, (str, InMemory)):
            raise TypeError(f"gone must be a list of InMemory params, got {gone!r}.")
        own = self._run.holder.owner.token
        reported = [report.params for report in new if type(report.params) is InMemory]
        for params in gone:
            if type(params) is not InMemory:
                raise TypeError(f"gone must name InMemory params, got {params!r}.")
            known = params.session == own and 0 < params.number <= self._run.numbered
            if not known or params in reported:
                raise ValueError(
                    f"gone must name params that this process has held, got {params!r}."
                    " A lease speaks for its own memory, of earlier reports."
                )
        return frozenset(gone) & self._run.in_memory

    def _claim(
        self, tx: Transaction, lost: Collection[InMemory]
    ) -> dict[int, ActiveWorker]:
        run, text = self._run, self._holder.text
        state, rules, slots = tx.state, run.leases, range(len(tx.state.slots))
        free = (
            leases.holds(state, text, w) or rules.is_claimable(state, w) for w in slots
        )
        if not all(free):
            raise ClaimError(
                "claim_all needs every slot, and some are held: "
                f"{', '.join(leases.holders(state))}. End these workers first, or give "
                "this run another log_dir."
            )
        tx.claim_weights()
        # What an earlier claim held is gone; what others hold is out of reach.
        self._forget(tx, lost)
        tx.do(reachability.lose(state, run.graph, run.decider, lambda held: True))
        return {worker_id: self._take(tx, worker_id) for worker_id in slots}

    def _take(self, tx: Transaction, worker_id: int) -> ActiveWorker:
        """Claim a slot, at its resume point."""
        state, rules, text = tx.state, self._run.leases, self._holder.text
        fence = rules.must_fence(state, worker_id, text)
        before = rules.owner(state, worker_id)
        tx.resume(worker_id, None, "takeover" if fence else "")
        row, grace = state.slots[worker_id].newest.row, grace_of(self._holder)
        tx.do(rules.claim(state, text, worker_id, tx.at, grace=grace, handed=row))
        note_claim(tx, worker_id, before, text)
        return self._run.active(worker_id)

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
