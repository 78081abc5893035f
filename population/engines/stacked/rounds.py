"""The rounds of a stacked population: training, reports, decisions, saves."""

from __future__ import annotations

import contextlib
import operator
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from population.base.errors import PopulationError
from population.base.types import Checkpoint, Held, Saved
from population.controller import PopulationController
from population.engines.stacked import arguments, setup
from population.engines.stacked.placement import key_of
from population.engines.stacked.tuner import Impossible
from population.run import deadlock

if TYPE_CHECKING:
    from population.core.incoming import Incoming
    from population.engines.stacked.member import Member
    from population.engines.stacked.states import Values

_SAVING = (OSError, RuntimeError, MemoryError, TypeError, ValueError)


class Rounds:
    """Trains all members round by round.

    Args:
        controller: The population.
        parts: States, batches and programs.
        request: What the user asks for.

    Attributes:
        rounds: Rounds so far.
        overhead_s: Seconds for recording, decisions and copies, without saving.
    """

    def __init__(
        self,
        controller: PopulationController,
        parts: setup.Parts,
        request: arguments.Request,
    ) -> None:
        self._controller = controller
        self._session = controller.session
        self._parts = parts
        self._save_every = request.options.save_every
        self._shared = request.source.kind == "shared"
        self._member: Member = parts.member
        self._reported: dict[Held, tuple[int, str, int]] = {}
        self._kept: set[Any] = set()  # What outlives the round.
        self._ids: list[str] = []  # The generations that are being trained.
        self._whole = True  # Whether the rows hold what was last reported.
        self.rounds = 0
        self.overhead_s = 0.0

    def train(self, stop: threading.Event) -> None:
        """Train until the run has ended, then save all states that are not saved.

        They are saved too if an error comes while the rows hold the states that were
        reported last: from the first batches of a round, or from tracing a step.
        """
        try:
            while not (self._controller.finished or stop.is_set()):
                start = time.perf_counter()
                active = self._prepare()
                self.overhead_s += time.perf_counter() - start
                if not active:
                    continue  # Another process has ended the run.
                start = time.perf_counter()
                values = self._round(active)
                if values is None:
                    self._parts.begin_again()
                    continue
                self._parts.tuner.trained(time.perf_counter() - start)
                self._parts.watch.trained(active, self._session.slots)
                self._report(active, values)
                self.rounds += 1
                if self.rounds == 1:
                    self._parts.record()
                self._parts.tune()
                self._session.check_progress()
        except BaseException as error:
            if isinstance(error, Exception) and self._whole:
                self._rescue(error)
            raise
        self._save_rest()

    def _rescue(self, error: BaseException) -> None:
        """Save what can be saved; if that fails, add a note to the error."""
        try:
            self._save_rest()
        except (*_SAVING, PopulationError) as second:
            reason = f"{type(second).__name__}: {second}"
            error.add_note(f"The training since the last save is lost, too: {reason}")

    def _prepare(self) -> list[int]:
        """Fill the rows with the states to train, and return the slots to train."""
        session, placement = self._session, self._parts.placement
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
        placement.snapshot(needed)
        if waiting or before != self._ids or self._moved():
            self._whole = False  # Should a copy fail.
            placement.bring([(w, slots[w].generation, slots[w].newest) for w in active])
            self._whole = True
        placement.drop_all_but(needed)
        for w in waiting:
            placement.clear(w)  # The row is trained too, but its result is dropped.
        self._kept = set(placement.snapshots) | pinned
        session.news.drain()
        return active

    def _moved(self) -> bool:
        """Whether a slot continues from another state than its row has reported."""
        newest = (slot.newest.params for slot in self._session.slots)
        return not all(map(operator.is_, newest, self._parts.placement.holds))

    def _give_up_lost(self) -> None:
        """Set slots back to a save whose states training has overwritten.

        Another process may have decided on them after the last report.
        """
        if not self._moved():
            return
        session, known = self._session, self._parts.placement.keys()
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
        if active and self._shared:
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
                f"Slots {lost} were taken over by another process, but a stacked "
                "population trains all of them. Stop that process, and run this again."
            )

    def _round(self, active: Sequence[int]) -> Values | None:
        """Train all rows for one round; None: the way of batching is impossible."""
        try:
            return self._trained(active)
        except Impossible:  # Its frames hold states: they end before others are made.
            return None

    def _trained(self, active: Sequence[int]) -> Values:
        """The values of a round; those of waiting slots are to be ignored."""
        parts, steps = self._parts, self._parts.placement.steps
        waits = np.ones(len(steps), np.bool_)
        waits[active] = False
        for chunk in range(1, parts.chunks + 1):
            # Waiting slots get the batches of an active one: no other is requested.
            asked = np.where(waits, steps[active[0]], steps)
            rows = active[:1] if self._shared else slice(None)
            batches = parts.feed.take(asked[rows].tolist())
            steps += parts.length
            self._whole = False
            with parts.tuner.guarded():
                if chunk < parts.chunks:
                    parts.states.train(batches)
                else:
                    values = parts.states.finish(batches)
        return values

    def _report(self, active: Sequence[int], values: Values) -> None:
        """Report the round; every `save_every` rounds, save the states before."""
        saves = (self.rounds + 1) % self._save_every == 0
        host = self._parts.states.host() if saves else None
        new: list[Incoming] = []
        with self._undone_on_error(new):
            if saves:
                self._save(self._parts.placement.snapshots, new)
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
            self._parts.placement.set_held(w, report.params)
            if isinstance(report.params, Held):
                self._reported[report.params] = w, report.generation_id, report.step
        self._whole = True
        self.overhead_s += time.perf_counter() - start

    def _incoming(self, w: int, params: Any, value: float, metrics: Any) -> Incoming:
        step = int(self._parts.placement.steps[w])
        return self._session.incoming(
            w, self._ids[w], step, params, value, metrics, plain=False
        )

    def _save_rest(self) -> None:
        """Save the states that only this process has."""
        with self._session.news.lock:
            newest = [slot.newest.params for slot in self._session.slots]
            keys = {key for key in newest if isinstance(key, Held)}
            keys |= self._session.held.pinned
        new: list[Incoming] = []
        with self._undone_on_error(new):
            self._save(keys, new)
            if new:
                self._commit(new)

    def _save(self, keys: Iterable[Any], new: list[Incoming]) -> None:
        """Save states that were reported as held, and add reports of these saves."""
        roots: dict[Any, list[Checkpoint]] = {}
        for slot in self._session.slots:
            if isinstance(slot.newest.params, Held):
                roots.setdefault(slot.newest.params, []).append(slot.newest)
        held = [key for key in keys if isinstance(key, Held) and key in self._reported]
        for key, flat in self._parts.placement.on_host(sorted(held)):
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
    def _undone_on_error(self, new: Sequence[Incoming]) -> Iterator[None]:
        """Undo unrecorded saves."""
        try:
            yield
        except BaseException:
            saved = [r for r in new if isinstance(r.params, Saved)]
            self._session.keeper.forget_unrecorded(saved, self._session.graph)
            raise
