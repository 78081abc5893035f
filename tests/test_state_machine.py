"""Any events in any order, from several processes, against a model of the protocol.

Two controllers share a run folder, like two processes. After each step both, and
one that has just opened the run, must agree with the model.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pathlib
import tempfile
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import population
from population import PopulationController, Worker
from population.base import NoProgressError
from tests import probe
from tests.helpers import Clock, assert_is_a_forest
from tests.model import (
    GIVEN_BACK,
    MOST_FAILURES,
    RAW,
    Coded,
    Hand,
    Leases,
    Model,
    Name,
    Point,
    Said,
    Standing,
)

TIMEOUT_S = 4000.0  # More than twice the time that a first step may take.
METAS = [10, 20, 30]
SLOTS = st.integers(0, len(METAS) - 1)
PLACES = st.integers(0, 1)
STEPS = st.integers(-1, 6)
PARAMS = st.sampled_from([None, None, "a", "b", "c", "d", "e", "f"])
VALUES = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(0, len(Coded.names) - 1).map(lambda code: code + 0.5),
    st.integers(0, 400).map(lambda n: n * 7 / 100),
)
REASONS = st.sampled_from(["it broke", "it broke", *dict.fromkeys(Coded.names)])
WHERE = st.integers(0, 30)  # Numbered back from the newest generation.


class Machine(RuleBasedStateMachine):
    """What workers, processes and time may do."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._log_dir = pathlib.Path(self._folder.name) / "run"
        self._clock = Clock()
        self._model = Model(METAS)
        self._leases = Leases(len(METAS), 2)
        self._mutators: list[Coded] = [Coded(), Coded()]
        self._places: list[PopulationController] = []
        self._workers: list[tuple[Worker, Hand]] = []
        self._said: list[Said] = []

    @initialize()
    def begin(self) -> None:
        """Two processes open the run."""
        self._places = [self._opened(mutator) for mutator in self._mutators]
        self._run = probe.run_token(self._places[0])

    def teardown(self) -> None:
        """Check that the run can be replayed, and close it."""
        self._workers.clear()
        if self._places:
            found = population.replay(self._log_dir, Coded())
            assert found.first_difference is None, str(found)
            assert found.updates == len(self._model.asked)
        for controller in self._places:
            controller.close()
        self._folder.cleanup()

    # Loops of the two calls.

    @rule(place=PLACES, worker_id=SLOTS, unknown=st.sampled_from([None, "", "x-0-0"]))
    def begin_to_poll(self, place: int, worker_id: int, unknown: str | None) -> None:
        """A loop has just begun, or belongs to another run."""
        self._poll(place, worker_id, unknown, 0, None)

    @rule(place=PLACES, worker_id=SLOTS, where=WHERE, ahead=STEPS, params=PARAMS)
    def poll(
        self, place: int, worker_id: int, where: int, ahead: int, params: str | None
    ) -> None:
        """A loop trains any generation, not always the present one or its own."""
        generation = self._generation(worker_id, where)
        step = max(self._model.first(generation).step + ahead, 0)
        self._poll(place, worker_id, generation, step, params)

    @rule(place=PLACES, worker_id=SLOTS, ahead=STEPS, params=PARAMS, value=VALUES)
    def report(
        self,
        place: int,
        worker_id: int,
        ahead: int,
        params: str | None,
        value: float | None,
    ) -> None:
        """Report for the present generation: a later, the same, or an earlier step."""
        step = max(self._model.newest(worker_id).step + ahead, 0)
        generation = self._model.generation(worker_id)
        self._report(place, Said(worker_id, generation, step, params, value))

    @rule(place=PLACES, said=st.tuples(SLOTS, WHERE, STEPS, PARAMS, VALUES))
    def report_anything(self, place: int, said: tuple[Any, ...]) -> None:
        """A late report, of a superseded generation, or of another worker."""
        self._report(place, self._any(*said))

    @rule(place=PLACES, worker_id=SLOTS, value=VALUES)
    def report_a_stranger(
        self, place: int, worker_id: int, value: float | None
    ) -> None:
        """Report for an unknown generation."""
        self._report(place, Said(worker_id, "9-9", 1, "a", value))

    @precondition(lambda self: self._said)
    @rule(place=PLACES, which=st.integers(0, 1000))
    def repeat_a_report(self, place: int, which: int) -> None:
        """Reports may be delivered more than once."""
        self._report(place, self._said[which % len(self._said)])

    @rule(
        place=PLACES,
        batch=st.lists(
            st.tuples(SLOTS, WHERE, STEPS, PARAMS, VALUES), min_size=1, max_size=4
        ),
    )
    def report_a_batch(self, place: int, batch: list[tuple[Any, ...]]) -> None:
        """Report several at once: all are recorded, then decided."""
        said = [self._any(*report) for report in batch]
        if any(self._model.refuses(s.generation, s.step) for s in said):
            with pytest.raises(ValueError, match="must be"):
                self._places[place].set_evals([self._named(s) for s in said])
            return
        self._heard_of(place, said, RAW)
        self._model.report(said)
        with self._may_end():
            self._places[place].set_evals([self._named(s) for s in said])
        self._said += said

    @rule(place=PLACES, said=st.tuples(SLOTS, WHERE, STEPS, PARAMS, VALUES))
    def report_to_a_mutator_that_raises(
        self, place: int, said: tuple[Any, ...]
    ) -> None:
        """Nothing is recorded, not even that the slot's worker is alive."""
        one = self._any(*said)
        if self._model.refuses(one.generation, one.step):
            return
        if not self._model.decides(one):
            self._report(place, one)
            return
        self._mutators[place].fail(True)
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            self._places[place].set_eval(*self._named(one))
        self._mutators[place].fail(False)

    @rule(place=PLACES, worker_id=SLOTS)
    def give_up(self, place: int, worker_id: int) -> None:
        """No decision waits for the slot, until it is trained further."""
        self._model.give_up(worker_id)
        self._places[place].give_up(worker_id)

    @rule(place=PLACES, worker_id=SLOTS, reason=REASONS)
    def fail(self, place: int, worker_id: int, reason: str) -> None:
        """A trial of a slot ends with an error, and the mutator decides by it."""
        self._model.fail(worker_id, reason)
        with self._may_end():
            self._places[place].fail(worker_id, reason)

    @rule(place=PLACES, worker_id=SLOTS)
    def revive(self, place: int, worker_id: int) -> None:
        """A slot is trained again, if it was retired."""
        self._model.revive(worker_id)
        self._places[place].revive(worker_id)

    # Workers.

    @precondition(lambda self: self._workers)
    @rule(which=st.integers(0, 2), reason=REASONS)
    def worker_fails(self, which: int, reason: str) -> None:
        """Its trial fails: it gives the slot back, if it still has one."""
        worker, hand = self._worker(which)
        own, hand.own = hand.own, None
        with contextlib.ExitStack() as stack:
            if own is not None and self._leases.holder[own] is hand:
                self._leases.write(own, GIVEN_BACK)
                self._model.fail(own, reason)
            if own is not None:
                stack.enter_context(self._may_end())
            worker.fail(reason)

    @precondition(lambda self: len(self._workers) < 3)
    @rule(place=PLACES, worker_id=SLOTS)
    def claim(self, place: int, worker_id: int) -> None:
        """A worker takes a slot over, whichever worker holds it."""
        worker = self._places[place].worker(worker_id)
        self._begin_work(worker, place, worker_id)

    @precondition(lambda self: len(self._workers) < 3)
    @rule(place=PLACES)
    def claim_any(self, place: int) -> None:
        """A worker claims the free slot with the fewest steps."""
        free = self._free(place, None)
        if free is not None:
            self._begin_work(self._places[place].worker(), place, free)

    @precondition(lambda self: self._workers)
    @rule(which=st.integers(0, 2))
    def worker_polls(self, which: int) -> None:
        """It continues, or gets new work; if it was fenced, for another slot."""
        self._worker_polls(*self._worker(which))

    @precondition(lambda self: self._workers)
    @rule(which=st.integers(0, 2), steps=st.integers(0, 3), params=PARAMS, value=VALUES)
    def worker_reports(
        self, which: int, steps: int, params: str | None, value: float | None
    ) -> None:
        """It trains a little and reports, even if it was fenced in between."""
        worker, hand = self._worker(which)
        worker.step += steps
        generation = hand.name[0]
        hand.name = (generation, worker.step)
        if hand.own is None:
            worker.report(value, params)
            return
        said = Said(hand.own, generation, worker.step, params, value)
        self._heard_of(hand.place, [said], hand)
        self._model.report([said])
        with self._may_end():
            worker.report(value, params)

    @precondition(lambda self: self._workers)
    @rule(which=st.integers(0, 2))
    def worker_goes(self, which: int) -> None:
        """It gives its slot back."""
        worker, hand = self._worker(which)
        worker.release()
        if hand.own is not None and self._leases.holder[hand.own] is hand:
            self._leases.write(hand.own, GIVEN_BACK)
        self._bury(hand)

    @precondition(lambda self: self._workers)
    @rule(which=st.integers(0, 2))
    def worker_dies(self, which: int) -> None:
        """Its slot is free at once."""
        self._bury(self._worker(which)[1])

    # Processes and time.

    @rule(place=PLACES)
    def restart(self, place: int) -> None:
        """A process and its workers end, and another one opens the run."""
        for _, hand in list(self._workers):
            if hand.place == place:
                self._bury(hand)
        self._places[place].close()
        self._leases.restart(place)
        self._places[place] = self._opened(self._mutators[place])

    @rule(workers=st.lists(st.booleans(), min_size=3, max_size=3), raw=st.sets(SLOTS))
    def silence(self, workers: list[bool], raw: set[int]) -> None:
        """For four timeouts only some workers poll."""
        hands = [
            (w, h)
            for (w, h), polls in zip(self._workers, workers, strict=False)
            if polls and h.own is not None and self._leases.holder[h.own] is h
        ]
        for _ in range(8):
            self._clock.advance(TIMEOUT_S / 2)
            self._leases.pass_time(0.5)
            self._look()
            for worker, hand in hands:
                self._worker_polls(worker, hand)
            for worker_id in sorted(raw):
                newest = self._model.newest(worker_id)
                self._poll(worker_id % 2, worker_id, *newest.name, None)
            self._look()

    # What always holds.

    @invariant()
    def all_agree_with_the_model(self) -> None:
        """Both processes, and one that has just opened the run."""
        for controller in self._places:
            self._check(controller)
        if self._places:
            fresh = self._opened(Coded())
            self._check(fresh)
            assert_is_a_forest(fresh.graph)
            fresh.close()

    def _check(self, controller: PopulationController) -> None:
        model = self._model
        shown = [
            (w.params, w.meta_params, w.generation_id, w.step)
            for w in controller.workers
        ]
        newest = [model.newest(w) for w in range(model.size)]
        assert shown == [
            (p.params, p.meta, self._id(p.name[0]), p.step) for p in newest
        ]
        history = {self._name(c.ref): c for c in controller.history()}
        assert history.keys() == model.points.keys()
        for name, point in model.points.items():
            c = history[name]
            parent = None if c.parent is None else self._name(c.parent)
            seen = Point(
                name, c.worker_id, c.params, c.meta_params, c.value, parent, c.reason
            )
            assert repr(seen) == repr(point)
        best = controller.best()
        assert (best and self._name(best.ref)) == (model.best and model.best.name)
        assert probe.mutator_state(controller) == model.asked
        assert probe.lost(controller) == model.lost
        assert probe.live(controller) == model.live
        statuses = probe.statuses(controller)
        for worker_id, standing in enumerate(model.standings):
            status = statuses.get(worker_id)
            if status is None:
                assert standing == Standing()
            else:
                found = status.kind, status.failures, status.retired, status.step
                assert found == (*standing[:3], standing.step)
        valued = [model.newest_value(w) for w in range(model.size)]
        steps = probe.steps(controller).tolist()
        assert steps == [-1 if p is None else p.step for p in valued]
        for worker_id, holder in enumerate(self._leases.holder):
            owner = probe.owner(controller, worker_id)
            assert (owner == "") == (holder == RAW)
            assert bool(owner) == isinstance(holder, Hand)

    # Details.

    def _opened(self, mutator: Coded) -> PopulationController:
        return PopulationController(
            METAS,
            mutator,
            self._log_dir,
            worker_timeout=TIMEOUT_S,
            clock=self._clock,
            max_failures=MOST_FAILURES,
        )

    def _may_end(self) -> contextlib.AbstractContextManager[object]:
        """An error is expected if every slot has failed too often."""
        if self._model.all_failed:
            return pytest.raises(NoProgressError, match="failed too often in a row")
        return contextlib.nullcontext()

    def _id(self, generation: str) -> str:
        return f"{self._run}-{generation}"

    def _name(self, ref: tuple[str, int]) -> Name:
        return ref[0].split("-", 1)[1], ref[1]

    def _named(self, said: Said) -> tuple[Any, ...]:
        return (said.worker_id, self._id(said.generation), *said[2:])

    def _generation(self, worker_id: int, where: int) -> str:
        if where < 12:  # Mostly the worker's own.
            newest = int(self._model.generation(worker_id).split("-")[1])
            return f"{worker_id}-{max(newest - where // 2, 0)}"
        known = self._model.generations()
        return known[-1 - where % len(known)]

    def _any(
        self,
        worker_id: int,
        where: int,
        ahead: int,
        params: str | None,
        value: float | None,
    ) -> Said:
        generation = self._generation(worker_id, where)
        step = max(self._model.first(generation).step + ahead, 0)
        return Said(worker_id, generation, step, params, value)

    def _poll(
        self,
        place: int,
        worker_id: int,
        generation: str | None,
        step: int,
        params: str | None,
    ) -> None:
        controller, model = self._places[place], self._model
        known = generation in model.generations()
        name = self._id(str(generation)) if known else generation
        own = str(generation).startswith(f"{worker_id}-")
        if known and own and model.refuses(str(generation), step):
            with pytest.raises(ValueError, match="must be"):
                controller.maybe_get_worker_data(worker_id, name, step, params, None)
            return
        was_current = generation == model.generation(worker_id)
        self._alive(place, worker_id, RAW)
        if was_current and generation != model.generation(worker_id):
            params = None  # This call branched it: nothing is kept.
        expected = model.poll(worker_id, str(generation))
        found = None
        # The last slot may be retired, as this sets it back from a divergence.
        with self._may_end() if expected is not None else contextlib.nullcontext():
            found = controller.maybe_get_worker_data(
                worker_id, name, step, params, None
            )
        if expected is not None and model.all_failed:
            return
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            brought = (found.params, self._name((found.generation_id, found.step)))
            assert brought == (expected.params, expected.name)

    def _report(self, place: int, said: Said) -> None:
        if self._model.refuses(said.generation, said.step):
            with pytest.raises(ValueError, match="must be"):
                self._places[place].set_eval(*self._named(said))
            return
        self._heard_of(place, [said], RAW)
        self._model.report([said])
        with self._may_end():
            self._places[place].set_eval(*self._named(said))
        self._said.append(said)

    def _heard_of(self, place: int, reports: list[Said], holder: Any) -> None:
        heard = set()
        for said in reports:
            newest = self._model.newest(said.worker_id)
            if said.generation == newest.name[0] and said.step >= newest.step:
                if said.step > newest.step:  # An evaluator's value is not training.
                    heard.add(said.worker_id)
                known = self._leases.holder[said.worker_id]
                if known is holder or (known is None and holder == RAW):
                    self._leases.write(said.worker_id, holder)
        self._model.lost -= heard

    def _alive(self, place: int, worker_id: int, holder: Any) -> None:
        """A poll shows that the worker is alive."""
        known, leases = self._leases.holder[worker_id], self._leases
        mine = known is holder or (holder == RAW and known in (None, GIVEN_BACK))
        if mine and leases.is_due(worker_id):
            leases.write(worker_id, holder)

    def _free(self, place: int, own: int | None) -> int | None:
        """The slot that a worker gets: those that fail come last."""
        model = self._model
        slots = [w for w in model.living if self._leases.is_claimable(place, w)]

        def order(w: int) -> tuple[int, int, bool, int]:
            return model.standings[w].failures, model.newest(w).step, w != own, w

        return min(slots, key=order, default=None)

    def _begin_work(self, worker: Worker, place: int, worker_id: int) -> None:
        self._model.keeps_weights = True
        hand = Hand(place, worker_id, worker_id, ("", 0))
        self._take(hand, worker_id)
        hand.name = self._model.newest(worker_id).name
        worker.turn = 10**9
        self._workers.append((worker, hand))
        assert worker.worker_id == worker_id
        assert (worker.generation_id, worker.step) == (
            self._id(hand.name[0]),
            hand.name[1],
        )

    def _take(self, hand: Hand, worker_id: int) -> None:
        known = self._leases.holder[worker_id]
        is_other = isinstance(known, Hand) and known is not hand
        if known == RAW or (is_other and not self._leases.is_gone(known)):
            self._model.take_over(worker_id)
        self._leases.write(worker_id, hand, grace=hand.cold)

    def _worker(self, which: int) -> tuple[Worker, Hand]:
        return self._workers[which % len(self._workers)]

    def _worker_polls(self, worker: Worker, hand: Hand) -> None:
        leases, model = self._leases, self._model
        own = hand.own
        if own is not None and leases.holder[own] is not hand:
            own = None
        if own is not None and self._gives_back(hand, own):
            if own not in model.living and self._free(hand.place, None) is None:
                if model.living:
                    return  # It would wait.
            leases.write(own, GIVEN_BACK)
            own = None
        if not model.living:
            hand.own = None
            with self._may_end():
                assert not worker.poll()
            assert not worker.running
            return
        if own is None:
            before = hand.worker_id if hand.adopted else None
            own = self._free(hand.place, before)
            if own is None:
                return  # It would wait.
            hand.reclaimed = True
            self._take(hand, own)
        hand.own = own
        expected: Point | None = None
        newest = model.newest(own)
        stays = hand.adopted and own == hand.worker_id
        if stays and hand.reclaimed:
            stays = newest.name == hand.name
        elif stays:
            stays = newest.name[0] == hand.name[0]
        hand.reclaimed = False
        if stays:
            hand.cold = False
            self._alive(hand.place, own, hand)
        else:
            found = self._handed_out(hand, own)
            if found is None:
                hand.own = None
                with probe.refusing_to_wait(self._places[hand.place]), self._may_end():
                    with contextlib.suppress(probe.WaitsError):
                        assert not worker.poll()
                return
            own, expected = found
            hand.own = own
            leases.write(own, hand, grace=hand.cold)
            hand.name, hand.worker_id, hand.adopted = expected.name, own, True
        assert worker.poll() == (expected is not None)
        assert worker.worker_id == own
        if expected is not None:
            given = (worker.params, worker.meta_params, worker.generation_id)
            name = self._id(expected.name[0])
            assert given == (expected.params, expected.meta, name)
        assert worker.step == hand.name[1]

    def _handed_out(self, hand: Hand, own: int) -> tuple[int, Point] | None:
        """The slot that a worker gets, with its work; None if there is none for it.

        A slot that diverged once too often is retired when it is to be handed out: then
        the worker claims another one.
        """
        before = hand.worker_id if hand.adopted else None
        while True:
            found = self._model.hand_out(own)
            if own in self._model.living:
                return own, found
            self._leases.write(own, GIVEN_BACK)
            if not self._model.living:
                return None
            other = self._free(hand.place, before)
            if other is None:
                return None
            own = other
            self._take(hand, own)

    def _gives_back(self, hand: Hand, own: int) -> bool:
        """Whether a worker gives its slot back, because it is retired or fails."""
        model = self._model
        if own not in model.living:
            return True
        if not hand.adopted or model.generation(own) == hand.name[0]:
            return False
        found, count = self._free(hand.place, None), model.standings
        return found is not None and count[found].failures < count[own].failures

    def _bury(self, hand: Hand) -> None:
        """This worker will never poll or report again."""
        self._workers = [pair for pair in self._workers if pair[1] is not hand]
        self._leases.gone.append(hand)

    def _look(self) -> None:
        for controller in self._places:
            probe.look(controller)


def play(examples: int, steps: int) -> None:
    """Run the machine; each time the same way."""
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=settings)


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The events cause many log messages."""
    caplog.set_level(logging.CRITICAL, "population")


@pytest.mark.usefixtures("_quiet")
def test_processes_and_workers_keep_to_the_protocol_in_any_order() -> None:
    """Polls, reports, deaths, takeovers and silences agree with the model."""
    play(100, 30)


@pytest.mark.slow
@pytest.mark.usefixtures("_quiet")
def test_processes_and_workers_keep_to_the_protocol_for_long() -> None:
    """More events, for longer."""
    play(1000, 80)


def test_a_best_that_was_rolled_back_is_forgotten() -> None:
    """The machine found this: a worse value that comes later is the best one then."""
    mutator = Coded()
    controller = PopulationController(METAS, mutator)
    name = controller.workers[0].generation_id
    mutator.fail(True)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        controller.set_eval(0, name, 1, None, 0.25)
    mutator.fail(False)
    controller.set_eval(0, name, 1, None, 0.5)
    best = controller.best()
    assert best is not None
    assert best.value == 0.5
