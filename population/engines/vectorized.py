"""Train the whole population as one program on an accelerator.

`run(controller, init, step, evaluate, 100)` stacks the states of all members and trains
them together: so many steps in a `lax.scan`, an evaluation of all, one transaction with
all reports; then the rows of those that branch are copied on the device. The policies,
the journal and the pictures are those of every other engine.

The three functions are of one member, and are traced. A state is any pytree, of the
same shapes for all. meta_params are the pytree that the controller knows, with scalars
for its numbers and bools, and codes, from 0 on, for what is neither. What `init` puts
in force is in force: at a branch the numbers of `optax.inject_hyperparams` are those
that `init` makes of the new meta_params at the same place. Where a batch size is a
hyperparameter, batches have the largest size, and `mask(meta_params["batch_size"],
size)` says which examples count.

Keys and batches depend on the run's seed, the slot and the step alone, as those of a
`Worker` do. With one batch for all, members that were set back are trained alone until
they have caught up.

All states are saved every so many rounds, and at the end: after a kill, training goes
on from the last save. Ctrl-C ends the run after the present round, a second one at
once.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import time
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from population.base.errors import ClaimError, PopulationError
from population.base.types import Checkpoint, Held, Saved
from population.controller import PopulationController
from population.engines.stacked import arguments, interrupts, setup
from population.engines.stacked.columns import mask as mask
from population.engines.stacked.placement import Tenants, key_of
from population.engines.stacked.summary import Summary as Summary
from population.in_force import restoring
from population.report import progress as progress_module
from population.run import deadlock

if TYPE_CHECKING:
    import jax

    from population.core.step import EncodedReport as Incoming
    from population.engines.stacked.member import Member
    from population.engines.stacked.states import Bank, Values


_SAVING = (OSError, RuntimeError, MemoryError, TypeError, ValueError)


def run(
    controller: PopulationController,
    init: Callable[[Any, Any], Any],
    step: Callable[[Any, Any, Any, Any], Any],
    evaluate: Callable[[Any, Any, Any], Any],
    steps_per_report: int,
    *,
    data: Any = None,
    batches: Callable[[int, int, int], Any] | None = None,
    shared_batches: Callable[[int, int], Any] | None = None,
    evaluation: Any = None,
    save_every: int = 10,
    batching: str = "auto",
    devices: Sequence[jax.Device] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    max_batch: int | Mapping[str, int] | None = None,
    keep: str | Collection[str] = (),
    progress: bool = True,
) -> Summary:
    """Train all members together until the run has ended.

    Args:
        controller: The population; all its slots are claimed.
        init: `(key, meta_params) -> state`.
        step: `(state, meta_params, batch, key) -> state`, one training step.
        evaluate: `(state, meta_params, batch) -> value`, a number, or the value and a
            dict of further numbers.
        steps_per_report: Steps between two reports of a member.
        data: What each step gets as its batch: a data set to draw from, say.
        batches: `(seed, worker_id, step)`, on the host, to a batch of one member.
        shared_batches: `(seed, step)` to one batch for all members.
        evaluation: What `evaluate` gets as its batch.
        save_every: Rounds from one save of all states to the next.
        batching: "vmap", "map", "loop", or "auto" for the fastest.
        devices: The members are spread over them; None: all local devices.
        categories: By name, the values that become codes; else as the space says.
        max_batch: The largest batch size, or those by name; else as the space says.
        keep: Names of injected numbers that `step` changes by itself; a branch leaves
            them as they were saved.
        progress: Whether to show bars.

    Raises:
        ValueError: If an argument, or a value of meta_params, is none that fits; if a
            shape depends on meta_params.
        TypeError: If an argument is none of the kind.
        ClaimError: If somebody else trains a slot.
        RuntimeError: If somebody takes a slot meanwhile, all wait for a decision, or
            whatever the members try they diverge.
        Exception: What the functions raise.
    """
    request = arguments.Request(
        (init, step, evaluate),
        arguments.source(data, batches, shared_batches),
        evaluation,
        arguments.options(steps_per_report, save_every, batching, devices),
        categories,
        max_batch,
        restoring.names_of(keep),
    )
    return _run(controller, request, progress)


def _run(
    controller: PopulationController, request: arguments.Request, progress: bool
) -> Summary:
    if not isinstance(controller, PopulationController):
        raise TypeError(
            "vectorized.run needs a PopulationController as its first argument, got "
            f"{type(controller).__name__}."
        )
    controller.session.check_open(to_train=True)
    start, claims = time.perf_counter(), controller.session.claims
    if controller.finished:
        return Summary(len(controller.session.slots), 0, "", 0.0, 0.0, False)
    with controller.session.news.lock:  # Two threads may ask at once.
        if claims.of_all is not None:
            raise ClaimError(
                "vectorized.run needs all slots, and a loop of this very controller "
                "has claimed them. End it first: one controller trains one stack at a "
                "time."
            )
        controller.claim_all()
    with contextlib.ExitStack() as stack:
        stack.callback(claims.release_all)
        parts = setup.assemble(controller, request)
        stack.callback(parts.feed.close)
        # What no program can take is refused before the decision is recorded.
        check = parts.member.columns.encode
        stack.enter_context(controller.session.decisions.checked_by(check))
        population = _Population(controller, parts, request.options.save_every)
        stop = stack.enter_context(interrupts.first_is_told())
        if progress:
            stack.enter_context(progress_module.bars(controller))
        population.train(stop)
    return Summary(
        num_members=parts.size,
        rounds=population.rounds,
        batching=parts.batching,
        wall_s=time.perf_counter() - start,
        overhead_s=population.overhead_s,
        interrupted=stop.is_set(),
    )


class _Population:
    """All members on their way, round by round.

    Args:
        controller: The population.
        parts: What trains it.
        save_every: Rounds from one save to the next.

    Attributes:
        rounds: Rounds so far.
        overhead_s: Seconds for recording, decisions and copies, without saving.
    """

    def __init__(
        self, controller: PopulationController, parts: setup.Parts, save_every: int
    ) -> None:
        self._controller = controller
        self._session = controller.session
        self._parts = parts
        self._save_every = save_every
        self._bank: Bank = parts.bank
        self._member: Member = parts.member
        self._tenants: Tenants = parts.tenants
        self._reported: dict[Held, tuple[int, str, int]] = {}
        self._kept: set[Any] = set()  # What outlives the round.
        self._ids: list[str] = []  # The generations that are being trained.
        self._whole = True  # Whether the rows hold what was last reported.
        self.rounds = 0
        self.overhead_s = 0.0

    def train(self, stop: threading.Event) -> None:
        """Round after round until the run has ended; then save what is not yet.

        That is done too if something is raised while the rows hold what was last
        reported: by the first batches of a round, by a step that cannot be traced.
        """
        try:
            while not (self._controller.finished or stop.is_set()):
                start = time.perf_counter()
                active = self._prepare()
                self.overhead_s += time.perf_counter() - start
                if not active:
                    continue  # Another process has ended the run.
                values = self._round(active)
                self._parts.watch.trained(active, self._session.slots)
                self._report(active, values)
                self.rounds += 1
                self._session.check_progress()
        except BaseException as error:
            if isinstance(error, Exception) and self._whole:
                self._rescue(error)
            raise
        self._save_rest()

    def _rescue(self, error: BaseException) -> None:
        """Save what can be saved; should that fail, the error says so too."""
        try:
            self._save_rest()
        except (*_SAVING, PopulationError) as second:
            told = f"{type(second).__name__}: {second}"
            error.add_note(f"What was trained since the last save is lost, too: {told}")

    def _prepare(self) -> list[int]:
        """Have the rows hold what the slots go on from; say which are trained."""
        session, tenants = self._session, self._tenants
        with session.news.lock:
            session.refresh()
            self._check_claim()
            self._give_up_lost()
            slots = list(session.slots)
            active = self._active()
            pinned = set(session.held.pinned)
        before = self._ids
        self._ids = [slot.generation.generation_id for slot in slots]
        waiting = sorted(set(range(len(slots))) - set(active))
        needed = pinned | {key_of(slots[w].newest) for w in waiting}
        tenants.keep(needed)
        if waiting or before != self._ids or self._moved():
            self._whole = False  # Should a copy fail.
            tenants.settle([(w, slots[w].generation, slots[w].newest) for w in active])
            self._whole = True
        tenants.drop_all_but(needed)
        for w in waiting:
            tenants.lose(w)  # It trains along, but nothing comes of it.
        self._kept = set(tenants.snapshots) | pinned
        session.news.drain()
        return active

    def _moved(self) -> bool:
        """Whether a slot goes on from anything else than what its row has reported."""
        newest = (slot.newest.params for slot in self._session.slots)
        return not all(map(operator.is_, newest, self._tenants.holds))

    def _give_up_lost(self) -> None:
        """Another process may have decided to go on from what was just overwritten.

        Such a slot goes on from what was saved.
        """
        if not self._moved():
            return
        session, known = self._session, self._tenants.keys()
        newest = [slot.newest.params for slot in session.slots]
        lost = [
            w
            for w, key in enumerate(newest)
            if isinstance(key, Held) and key not in known
        ]

        def go_back() -> None:
            for worker_id in lost:
                session.go_back(worker_id)

        if lost:
            session.transact([], go_back)

    def _active(self) -> list[int]:
        """The slots to train: those that do not wait for a decision."""
        slots, waits = self._session.slots, self._session.waits
        active = [w for w in range(len(slots)) if not waits(w)]
        if not active:
            deadlock.resolve(self._session, evaluators=False)
            active = [w for w in range(len(slots)) if not waits(w)]
        if active and self._parts.shared:
            lowest = min(slots[w].newest.step for w in active)
            active = [w for w in active if slots[w].newest.step == lowest]
        return active

    def _check_claim(self) -> None:
        claims = self._session.claims
        if self.rounds:  # The first one may take long: it compiles.
            claims.renew_all()
        lost = claims.lost()
        if lost:
            raise RuntimeError(
                f"Slots {lost} were taken over by somebody else, and a stacked "
                "population trains all of them. Stop the other one, and run this again."
            )

    def _round(self, active: Sequence[int]) -> Values:
        """One round of all rows; what is trained along for waiting slots is lost."""
        parts, steps = self._parts, self._tenants.steps
        waits = np.ones(len(steps), np.bool_)
        waits[active] = False
        for chunk in range(1, parts.chunks + 1):
            # Nobody asks for batches of steps that no member will make.
            asked = np.where(waits, steps[active[0]], steps)
            rows = active[:1] if parts.shared else slice(None)
            batches = parts.feed.take(asked[rows].tolist())
            steps += parts.length
            self._whole = False
            if chunk < parts.chunks:
                self._bank.train(batches)
        return self._bank.finish(batches)

    def _report(self, active: Sequence[int], values: Values) -> None:
        """Report what was trained; if it is time, save it before."""
        saves = (self.rounds + 1) % self._save_every == 0
        host = self._bank.host() if saves else None
        new: list[Incoming] = []
        with self._forgotten_on_error(new):
            if saves:
                self._save(self._tenants.snapshots, new)
            first = len(new)
            for w in active:
                value, metrics = values[w]
                params = Held() if host is None else self._member.saved(host(w))
                new.append(
                    self._incoming(w, params, value, self._member.metrics(metrics))
                )
            start = time.perf_counter()
            self._commit(new)
        self._reported = {k: p for k, p in self._reported.items() if k in self._kept}
        for w, report in zip(active, new[first:], strict=True):
            self._tenants.has(w, report.params)
            if isinstance(report.params, Held):
                self._reported[report.params] = w, report.generation_id, report.step
        self._whole = True
        self.overhead_s += time.perf_counter() - start

    def _incoming(self, w: int, params: Any, value: float, metrics: Any) -> Incoming:
        step = int(self._tenants.steps[w])
        return self._session.incoming(
            w, self._ids[w], step, params, value, metrics, plain=False
        )

    def _save_rest(self) -> None:
        """Save what only this process has, so that everything can go on from it."""
        with self._session.news.lock:
            newest = [slot.newest.params for slot in self._session.slots]
            keys = {key for key in newest if isinstance(key, Held)}
            keys |= self._session.held.pinned
        new: list[Incoming] = []
        with self._forgotten_on_error(new):
            self._save(keys, new)
            if new:
                self._commit(new)

    def _save(self, keys: Iterable[Any], new: list[Incoming]) -> None:
        """Save what was reported as held, and add that to what is to be reported."""
        roots: dict[Any, list[Checkpoint]] = {}
        for slot in self._session.slots:
            if isinstance(slot.newest.params, Held):
                roots.setdefault(slot.newest.params, []).append(slot.newest)
        held = [key for key in keys if isinstance(key, Held) and key in self._reported]
        for key, flat in self._tenants.on_host(sorted(held)):
            place = self._reported[cast(Held, key)]
            tree = self._member.saved(flat)
            saved = self._session.incoming(*place, tree, None, plain=False)
            new.append(saved)
            for root in roots.get(key, ()):
                if root.ref != place[1:]:  # A branch that was not trained yet has it.
                    own = root.worker_id, *root.ref
                    new.append(self._session.incoming(*own, saved.params, None))

    def _commit(self, new: Sequence[Incoming]) -> None:
        self._session.commit(new, self._session.claims.of_all)

    @contextlib.contextmanager
    def _forgotten_on_error(self, new: Sequence[Incoming]) -> Iterator[None]:
        """What was saved for reports that are then not made is removed again."""
        try:
            yield
        except BaseException:
            saved = [r for r in new if isinstance(r.params, Saved)]
            self._session.keeper.forget_unrecorded(saved, self._session.graph)
            raise
