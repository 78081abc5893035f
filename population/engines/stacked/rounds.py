"""The rounds of a stacked population: training, reports, decisions, saves."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from population.base.errors import LostParamsError, PopulationError
from population.base.types import Checkpoint, InMemory
from population.engines.stacked import arguments, setup
from population.engines.stacked.lease import EngineLease, Trained
from population.engines.stacked.placement import key_of
from population.engines.stacked.tuner import Impossible
from population.run.population_lease import SlotWork

if TYPE_CHECKING:
    from population.engines.stacked.stack import Evaluated, RowMap
_SAVING = (OSError, RuntimeError, MemoryError, TypeError, ValueError)


class PopulationTrainer:
    """Trains all members round by round.

    Args:
        lease: The population.
        parts: States, batches and programs.
        request: The arguments of the user.

    Attributes:
        rounds: Rounds so far.
        overhead_s: Seconds for recording, decisions and copies, without saving.
    """

    def __init__(
        self,
        lease: EngineLease,
        parts: setup.Parts,
        request: arguments.Request,
    ) -> None:
        self._lease, self._population = lease, lease.population
        self._slots: list[SlotWork] = []  # As they are trained.
        self._parts = parts
        self._save_every = request.save_every
        self._shared = request.source.shared
        self._reported: dict[InMemory, tuple[int, str, int]] = {}
        self._kept: Collection[Any] = ()  # Keys of states that stay after the round.
        self._whole = True  # Whether the rows hold the states last reported.
        self.rounds = 0
        self.overhead_s = 0.0

    def train(self, stop: threading.Event) -> None:
        """Train until the run has ended, then save all states that are not saved.

        They are saved too if an error comes while the rows hold the states that were
        reported last: from the first batches of a round, or from tracing a step.
        """
        try:
            while not (self._lease.controller.finished or stop.is_set()):
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
                self._parts.watch.trained(self._parts.stack, active, self._slots)
                self._report(active, values)
                self.rounds += 1
                if self.rounds == 1:
                    self._parts.record()
                self._parts.tune()
                self._population.check_progress()
        except BaseException as error:
            if isinstance(error, Exception) and self._whole:
                self._rescue(error)
            raise
        self._save_rest()

    def _rescue(self, error: BaseException) -> None:
        """Save all unsaved states; if that fails, add a note to the error."""
        try:
            self._save_rest()
        except (*_SAVING, PopulationError) as second:
            reason = f"{type(second).__name__}: {second}"
            error.add_note(f"The training since the last save is lost, too: {reason}")

    def _prepare(self) -> list[int]:
        """Fill the rows with the states to train, and return the slots to train."""
        population, placement = self._population, self._parts.placement
        while True:
            with population.view():
                if self.rounds:  # The first one may take long: it compiles.
                    population.renew()
                self._check_claim()
                slots = self._present()
                active = self._active(slots)
                pinned = population.needed()
            waiting = sorted(set(range(len(slots))) - set(active))
            needed = pinned.union(_standing(slots[w] for w in waiting))
            placement.snapshot(needed)
            live = [w for w, slot in enumerate(slots) if not slot.retired]
            rows = self._parts.resized(live)
            if rows is not None:
                self._resize(rows, slots)
            elif self._bring(slots, active, waiting):
                break
        placement.drop_all_but(needed)
        for w in waiting:
            placement.holds[w] = None  # It is trained too, and its result is dropped.
        self._kept = pinned | placement.snapshots.keys()
        return active

    def _bring(
        self, slots: list[SlotWork], active: Sequence[int], waiting: Sequence[int]
    ) -> bool:
        """Fill the rows; return False if a save is lost, and slots have other work."""
        before, self._slots = self._slots, slots
        if waiting or _ids(before) != _ids(slots) or self._moved(slots):
            self._whole = False  # Should a copy fail.
            try:
                self._parts.placement.bring({w: slots[w] for w in active})
            except LostParamsError as error:
                self._whole = True  # What was copied before it is noted.
                self._population.replace(error)
                return False
            self._whole = True
        return True

    def _resize(self, rows: RowMap, slots: Sequence[SlotWork]) -> None:
        """Give the stack other rows; states that leave it stay within reach.

        Those of retired slots are saved, so that they need no memory on the device.
        """
        placement, graph = self._parts.placement, self._lease.controller.graph
        leaving = placement.leaving(rows.worker_ids)
        placement.snapshot(leaving.intersection(slot.newest.params for slot in slots))
        retired = [slot.newest for slot in slots if slot.retired]
        kept = [*retired, *map(graph.resume_point, retired)]
        self._lease.report(self._saves(point.params for point in kept))
        self._parts.resize(rows)

    def _moved(self, slots: Sequence[SlotWork]) -> bool:
        """Whether a slot continues from another state than its row has reported."""
        newest = (slot.newest.params for slot in slots)
        return not all(map(operator.is_, newest, self._parts.placement.holds))

    def _present(self) -> list[SlotWork]:
        """Return the work of all slots, whose states are in memory or saved.

        Another process may have decided after the last report that a slot continues
        from a state that training has overwritten: this resets the slot to a save.
        """
        slots = self._population.slots()
        if self._moved(slots):
            known = self._parts.placement.keys()
            lost = [
                worker_id
                for worker_id, slot in enumerate(slots)
                if isinstance(slot.newest.params, InMemory)
                and slot.newest.params not in known
            ]
            if lost:
                self._population.resume(lost)
                slots = self._population.slots()
        if all(slot.waits for slot in slots):
            self._population.unblock()
            slots = self._population.slots()
        return slots

    def _active(self, slots: Sequence[SlotWork]) -> list[int]:
        """Return the slots to train: those that do not wait for a decision."""
        active = [w for w, slot in enumerate(slots) if not slot.waits]
        if active and self._shared:
            lowest = min(slots[w].newest.step for w in active)
            active = [w for w in active if slots[w].newest.step == lowest]
        return active

    def _check_claim(self) -> None:
        if taken := self._population.taken():
            raise RuntimeError(
                f"Slots {taken} were taken over by another process, but a stacked "
                "population trains all of them. Stop that process, and run this again."
            )

    def _round(self, active: Sequence[int]) -> Evaluated | None:
        """Train all rows for one round; None: the way of batching is impossible."""
        try:
            return self._trained(active)
        except Impossible:  # Its frames hold states: they end before others are made.
            return None

    def _trained(self, active: Sequence[int]) -> Evaluated:
        """Train a round; return its values, with meaningless ones for waiting slots."""
        parts, steps = self._parts, self._parts.placement.steps
        waits = np.ones(len(steps), np.bool_)
        waits[active] = False
        for chunk in range(1, parts.chunks + 1):
            # Waiting slots get the batches of an active one: no other is requested.
            asked = np.where(waits, steps[active[0]], steps)
            batches = parts.feed.take(asked.tolist())
            steps += parts.length
            self._whole = False
            with parts.tuner.guarded():
                if chunk < parts.chunks:
                    parts.stack.train(batches)
                else:
                    values = parts.stack.finish(batches)
        return values

    def _report(self, active: Sequence[int], values: Evaluated) -> None:
        """Report the round; every `save_every` rounds, save the states before."""
        saves = (self.rounds + 1) % self._save_every == 0
        host, member = self._parts.stack.host() if saves else None, self._parts.member
        snapshots = list(self._parts.placement.snapshots) if saves else []
        before = self._lease.recording_s

        def reports() -> Iterator[Trained]:
            yield from self._saves(snapshots)
            for w in active:
                value, metrics = values[w]
                params = InMemory() if host is None else member.layout.saved(host(w))
                yield Trained(*self._place(w), params, value, member.metrics(metrics))

        gone = [key for key in self._reported if key not in self._kept]
        params = self._lease.report(reports(), gone)[-len(active) :]
        start = time.perf_counter()
        self._reported = {k: p for k, p in self._reported.items() if k in self._kept}
        for w, key in zip(active, params, strict=True):
            self._parts.placement.holds[w] = key
            if isinstance(key, InMemory):
                self._reported[key] = self._place(w)
        self._whole = True
        self.overhead_s += self._lease.recording_s - before
        self.overhead_s += time.perf_counter() - start

    def _place(self, worker_id: int) -> tuple[int, str, int]:
        """Return a slot, its generation and its present step."""
        step = int(self._parts.placement.steps[worker_id])
        return worker_id, self._slots[worker_id].generation_id, step

    def _save_rest(self) -> None:
        """Save the states that only this process has."""
        with self._population.view():
            newest = [slot.newest.params for slot in self._population.slots()]
            keys = {key for key in newest if isinstance(key, InMemory)}
            keys |= self._population.needed()
        self._lease.report(self._saves(keys))

    def _saves(self, keys: Iterable[Any]) -> Iterator[Trained]:
        """Yield reports with the states of keys that were reported as `InMemory`."""
        roots: dict[Any, list[Checkpoint]] = {}
        for slot in self._population.slots():
            if isinstance(slot.newest.params, InMemory):
                roots.setdefault(slot.newest.params, []).append(slot.newest)
        held = sorted(self._reported.keys() & set(keys))
        for key, flat in self._parts.placement.on_host(held):
            place = self._reported[cast(InMemory, key)]
            tree = self._parts.member.layout.saved(flat)
            yield Trained(*place, tree)
            for root in roots.get(key, ()):
                if root.ref != place[1:]:  # A branch that was not trained yet has it.
                    yield Trained(root.worker_id, *root.ref, tree)


def _standing(waiting: Iterable[SlotWork]) -> set[Any]:
    """Return the keys of the states of waiting slots that need a snapshot.

    Those of retired slots need one only while no other place has them.
    """
    return {
        key_of(slot.newest)
        for slot in waiting
        if not slot.retired or isinstance(slot.newest.params, InMemory)
    }


def _ids(slots: Sequence[SlotWork]) -> list[str]:
    return [slot.generation_id for slot in slots]
