"""A slot that continues from what its loop has just reported reads nothing."""

from __future__ import annotations

import gc
import pathlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from flax.training.train_state import TrainState

from population import (
    Branch,
    PopulationController,
    PopulationView,
    Report,
    Stop,
    Worker,
    hyperparams,
)
from population.base.errors import MisfitError
from population.core.retention import Keep
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.params.reported import ReportedState
from tests import nnx_loop
from tests.helpers import Scripted, branch_at
from tests.params.stores import CountedFiles

Meta = dict[str, float]
OPTIMIZER = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
INPUTS = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)
MODEL = linen.Dense(2)


class Loop(NamedTuple):
    """A state of some kind, and how it is trained.

    Attributes:
        init: Makes a fresh state.
        step: Trains a state and returns the next one.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any], Any]


def init(meta: Any) -> Any:
    """Weights, an optimiser with its numbers, a key, and a counter."""
    weights = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    opt_state = hyperparams.put(OPTIMIZER.init(weights), meta, strict=False)
    return {"weights": weights, "opt": opt_state, "key": jax.random.key(1), "steps": 0}


def loss(weights: Any, noise: Any) -> Any:
    """The distance from a linear function."""
    return jnp.mean((INPUTS @ weights["w"] + weights["b"] - 1.0 + noise) ** 2)


def plain_step(state: Any) -> Any:
    """One step, with noise from the state's own key."""
    key, used = jax.random.split(state["key"])
    gradients = jax.grad(loss)(state["weights"], 0.1 * jax.random.normal(used))
    updates, opt_state = OPTIMIZER.update(gradients, state["opt"])
    weights = optax.apply_updates(state["weights"], updates)
    return {
        "weights": weights,
        "opt": opt_state,
        "key": key,
        "steps": state["steps"] + 1,
    }


train_step = jax.jit(plain_step)


def init_train_state(meta: Any) -> Any:
    """Flax's `TrainState`, whose step is the int 0 at first."""
    params = MODEL.init(jax.random.key(0), INPUTS)
    create: Any = TrainState.create
    state = create(apply_fn=MODEL.apply, params=params, tx=OPTIMIZER)
    opt_state = hyperparams.put(state.opt_state, meta, strict=False)
    return state.replace(opt_state=opt_state)


@jax.jit
def train_state_step(state: Any) -> Any:
    """One step of a `TrainState`."""

    def distance(params: Any) -> Any:
        outputs: Any = MODEL.apply(params, INPUTS)
        return jnp.mean((outputs - 1.0) ** 2)

    return state.apply_gradients(grads=jax.grad(distance)(state.params))


LOOPS = {
    "plain": Loop(init, train_step),
    "donating": Loop(init, jax.jit(plain_step, donate_argnums=0)),
    "train state": Loop(init_train_state, train_state_step),
    "nnx": Loop(nnx_loop.init, nnx_loop.step),
}


def rates(step: int) -> Meta:
    """Another learning rate after each report."""
    return {"learning_rate": 0.1 / (1 + step)}


def mutated(meta: Meta) -> Meta:
    """A lower learning rate."""
    return {"learning_rate": 0.9 * meta["learning_rate"]}


POLICIES: dict[str, Callable[[], Any]] = {
    "schedule": lambda: FixedSchedule(rates),
    "explore": lambda: PopulationBasedTraining(mutated, 2, exploit=None),
}


def opened(
    folder: pathlib.Path, mutator: Any, size: int = 1, steps: int = 12, **options: Any
) -> tuple[PopulationController, CountedFiles]:
    """A run on disk, and its store, which counts loads."""
    store = CountedFiles(folder / "weights")
    metas = [rates(worker_id) for worker_id in range(size)]
    stop = Stop(steps=steps)
    run = PopulationController(
        metas, mutator, folder / "run", params=store, stop=stop, **options
    )
    return run, store


def train(worker: Worker, loop: Loop = LOOPS["plain"], reports: int = 10**6) -> Any:
    """Train to the end, or for some reports of two steps; return the state."""
    state: Any = None
    for _ in range(reports):
        if not worker.running:
            break
        if worker.poll():
            state = worker.restore(loop.init)
        if not worker.running:
            break
        for _ in range(2):
            state = loop.step(state)
        worker.step += 2
        worker.report(float(worker.step), state)
    return state


def content(tree: Any) -> list[Any]:
    """The bits of all leaves."""

    def bits(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        return type(leaf), np.asarray(leaf).dtype, np.asarray(leaf).tobytes()

    return [bits(leaf) for leaf in jax.tree.leaves(tree)]


def states(run: PopulationController, loop: Loop) -> list[Any]:
    """Step, hyperparameters and weights of all checkpoints."""
    return [
        (c.step, c.meta_params, content(run.load(c, loop.init(c.meta_params))))
        for c in run.history()
        if c.params is not None
    ]


@pytest.fixture
def always_load(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call every restore reads the params store."""

    def refuse(state: ReportedState, like: Any) -> Any:
        raise MisfitError("It must be loaded.")

    return lambda: monkeypatch.setattr(ReportedState, "fitted", refuse)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LOOPS)
def test_a_member_that_keeps_its_weights_reads_nothing(
    tmp_path: pathlib.Path, always_load: Callable[[], None], name: str, policy: str
) -> None:
    """It trains as if it had read them, to the bit, with the new hyperparameters."""
    loop, keep = LOOPS[name], Keep(everything=True)
    run, store = opened(tmp_path / "own", POLICIES[policy](), keep=keep)
    with run.worker() as worker:
        train(worker, loop)
    assert store.loaded == []
    found = states(run, loop)
    assert len({meta["learning_rate"] for _, meta, _ in found}) == 7
    always_load()
    other, store = opened(tmp_path / "loaded", POLICIES[policy](), keep=keep)
    with other.worker() as worker:
        train(worker, loop)
    assert len(store.loaded) == 5
    assert found == states(other, loop)
    run.close()
    other.close()


def test_a_restored_state_has_the_arrays_of_the_reported_one(
    tmp_path: pathlib.Path,
) -> None:
    """Apart from the assigned number; and `init` is called once."""
    run, _ = opened(tmp_path, FixedSchedule(rates))
    calls = []

    def counted(meta: Any) -> Any:
        calls.append(meta)
        return init(meta)

    with run.worker() as worker:
        state = train(worker, reports=1)
        assert worker.poll()
        found = worker.restore(counted)
        assert found["weights"]["w"] is state["weights"]["w"]
        rate = hyperparams.read(found["opt"])["learning_rate"]
        assert rate == pytest.approx(rates(2)["learning_rate"])
        structures: list[Any] = [*map(jax.tree.structure, (found, init(rates(2))))]
        assert structures[0] == structures[1]
        assert found["steps"] == 2
        assert calls == [rates(2)]
    run.close()


def test_a_kept_number_stays_as_it_was_reported(tmp_path: pathlib.Path) -> None:
    """As in a state that was read."""
    run, store = opened(tmp_path, FixedSchedule(rates))
    with run.worker() as worker:
        worker.poll()
        state = worker.restore(init)
        annealed = hyperparams.put(state["opt"], {"learning_rate": 0.125})
        state = {**state, "opt": annealed}
        worker.step += 2
        worker.report(1.0, state)
        assert worker.poll()
        found = worker.restore(init, keep="learning_rate")
    assert hyperparams.read(found["opt"])["learning_rate"] == 0.125
    assert store.loaded == []
    run.close()


# States that may have changed since, or of which nothing is left.


def restored(
    folder: pathlib.Path,
    make: Callable[[], Any],
    change: Callable[[dict[str, Any]], None],
) -> tuple[Any, int]:
    """Report a state, change it, restore it; return that, and the number of loads."""
    run, store = opened(folder, FixedSchedule(rates))
    with run.worker() as worker:
        worker.poll()
        worker.restore(lambda meta: make())
        worker.step += 2
        state = {"w": make()["w"] + 1}
        worker.report(1.0, state)
        change(state)
        assert worker.poll()
        found = worker.restore(lambda meta: make())
    run.close()
    return found, len(store.loaded)


def fill(state: dict[str, Any]) -> None:
    """Change a NumPy array in place."""
    state["w"][:] = -1


def donate(state: dict[str, Any]) -> None:
    """Donate an array to a step."""
    jax.jit(lambda x: x + 1, donate_argnums=0)(state["w"])


def replace(state: dict[str, Any]) -> None:
    """Put another array into the reported dict."""
    state["w"] = state["w"] * 5


def nothing(state: dict[str, Any]) -> None:
    """Leave the state as it is."""


@pytest.mark.parametrize(
    ("make", "change", "loads"),
    [
        (jnp.zeros, nothing, 0),
        (jnp.zeros, donate, 1),
        (jnp.zeros, replace, 1),
        (np.zeros, nothing, 1),
        (np.zeros, fill, 1),
    ],
)
def test_what_happens_to_a_reported_state_changes_no_restored_one(
    tmp_path: pathlib.Path, make: Any, change: Any, loads: int
) -> None:
    """It is read again if an array was donated, dropped, or may have been changed."""
    found, count = restored(tmp_path, lambda: {"w": make(3)}, change)
    np.testing.assert_array_equal(found["w"], np.ones(3))
    assert isinstance(found["w"], type(make(3)))
    assert count == loads


def test_two_restores_are_independent(tmp_path: pathlib.Path) -> None:
    """The second one is read: a step may donate the first."""
    run, store = opened(tmp_path, FixedSchedule(rates))
    with run.worker() as worker:
        state = train(worker, reports=1)
        assert worker.poll()
        one, other = worker.restore(init), worker.restore(init)
        assert content(one) == content(other)
        donate(one["weights"])
        assert not other["weights"]["w"].is_deleted()
        assert state["weights"]["w"].is_deleted()  # It is the array of the first one.
    assert len(store.loaded) == 1
    run.close()


def test_nothing_keeps_a_reported_state_alive(tmp_path: pathlib.Path) -> None:
    """Not between two reports, and not after a restore: a loop has its weights once."""
    run, _ = opened(tmp_path, Scripted(branch_at(4, rates(4))))
    gc.disable()
    try:
        with run.worker() as worker:
            for is_news in (True, False, True):
                assert worker.poll() == is_news
                if is_news:
                    state = worker.restore(init)
                weights = [state["weights"]["w"], state["opt"].inner_state[0].mu["w"]]
                before = [weakref.ref(leaf) for leaf in weights]
                state, weights = train_step(state), []
                assert [leaf() for leaf in before] == [None, None]
                worker.step += 2
                worker.report(1.0, state)
                last = weakref.ref(state["weights"]["w"])
            del state
            assert last() is None
    finally:
        gc.enable()
    run.close()


# Work that is not what the worker has just reported.


def deciding(step: int, parent_step: int) -> Scripted:
    """At a step, slot 0 goes on from one of its checkpoints."""
    return Scripted(branch_at(step, rates(9), back_to=parent_step))


def expected(run: PopulationController, worker: Worker) -> list[Any]:
    """The weights that the store has for the worker's work."""
    return content(run.load(worker.lineage[-1], init({}))["weights"])


def test_an_earlier_checkpoint_is_read(tmp_path: pathlib.Path) -> None:
    """It is not what the loop has reported last."""
    run, store = opened(tmp_path, deciding(6, 4), keep=Keep(everything=True))
    with run.worker() as worker:
        train(worker, reports=3)
        assert worker.poll()
        assert worker.step == 4
        found = worker.restore(init)
        assert found["steps"] == 4
        assert len(store.loaded) == 1
        assert content(found["weights"]) == expected(run, worker)
    run.close()


def test_after_a_divergence_the_last_finite_state_is_read(
    tmp_path: pathlib.Path,
) -> None:
    """The state that was reported with NaN is not used."""
    run, store = opened(tmp_path, PopulationBasedTraining(mutated, 4, exploit=None))
    with run.worker() as worker:
        state = train(worker, reports=1)
        worker.poll()
        worker.step += 2
        worker.report(float("nan"), state)
        assert worker.poll()
        assert worker.step == 2
        worker.restore(init)
    assert len(store.loaded) == 1
    run.close()


def test_rejected_params_are_not_used(tmp_path: pathlib.Path) -> None:
    """The slot continues from older ones, although the loop still has the others."""
    run, store = opened(tmp_path, deciding(4, 4), keep=Keep(everything=True))
    with run.worker() as worker:
        state = train(worker, reports=2)
        assert worker.poll()
        worker.reject("they look wrong")
        assert worker.poll()
        assert worker.step == 2
        found = worker.restore(init)
        assert found["steps"] == 2
    assert int(state["steps"]) == 4
    assert len(store.loaded) == 1
    run.close()


def test_another_report_of_a_step_is_not_what_the_slot_continues_from(
    tmp_path: pathlib.Path,
) -> None:
    """The first one was recorded, and is read."""
    run, store = opened(tmp_path, Scripted(branch_at(2, rates(2))))
    with run.worker() as worker:
        state = train(worker, reports=1)
        worker.report(2.0, other := train_step(state))
        assert worker.poll()
        found = worker.restore(init)
        assert content(found["weights"]) == content(state["weights"])
        assert content(found["weights"]) != content(other["weights"])
    assert len(store.loaded) == 1
    run.close()


def test_what_another_worker_has_reported_since_is_read(tmp_path: pathlib.Path) -> None:
    """It took the slot over, and trained it further."""
    run, store = opened(tmp_path, FixedSchedule(rates))
    first = run.worker()
    state = train(first, reports=1)
    with run.worker(0) as second:
        train(second, reports=1)
    assert first.poll()
    found = first.restore(init)
    assert len(store.loaded) == 2
    assert (int(state["steps"]), found["steps"]) == (2, 4)
    assert content(found["weights"]) == expected(run, first)
    first.release()
    run.close()


def test_another_slot_is_read(tmp_path: pathlib.Path) -> None:
    """Even one that copies the state that the loop has just reported."""

    def copied(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        found = report.worker_id == 0 and report.checkpoint.step == 4
        return {1: Branch(report.checkpoint, rates(1))} if found else {}

    run, store = opened(tmp_path, Scripted(copied), size=2)
    with run.worker(0) as worker:
        state = train(worker, reports=2)
        worker.release()
        with run.worker(0):
            assert worker.poll()
        assert (worker.worker_id, worker.step) == (1, 4)
        found = worker.restore(init)
        assert content(found["weights"]) == content(state["weights"])
    assert len(store.loaded) == 1
    run.close()


def test_a_loser_reads_the_weights_of_the_winner_alone(tmp_path: pathlib.Path) -> None:
    """In the same decision the winner gets new hyperparameters, and reads nothing."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.worker_id == 0 or report.checkpoint.step != 4:
            return {}
        return {w: Branch(view.newest(0), rates(w)) for w in (0, 1)}

    run, store = opened(tmp_path, Scripted(decide), size=2)
    with run.worker(0) as winner, run.worker(1) as loser:
        ours, theirs = train(winner, reports=2), train(loser, reports=2)
        assert winner.poll()
        assert loser.poll()
        assert winner.restore(init)["weights"]["w"] is ours["weights"]["w"]
        assert store.loaded == []
        found = loser.restore(init)
        assert content(found["weights"]) == content(ours["weights"])
        assert content(found["weights"]) != content(theirs["weights"])
        assert len(store.loaded) == 1
    run.close()


def test_taking_turns_reads_what_the_slot_has(tmp_path: pathlib.Path) -> None:
    """One worker trains three slots, and each has its own weights."""
    policy = PopulationBasedTraining(mutated, 2, exploit=None, synchronous=True)
    run, _ = opened(tmp_path, policy, size=3)
    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(init)
                assert int(state["steps"]) == worker.step
                if worker.step:
                    assert content(state["weights"]) == expected(run, worker)
                    assert state["weights"]["b"][0] == worker.worker_id
            if not worker.running:
                break
            own = jnp.full(2, worker.worker_id, jnp.float32)
            state = {**state, "weights": {**state["weights"], "b": own}}
            state["steps"] += 1
            worker.step += 1
            worker.report(1.0, state)
    run.close()


# What a restore says of hyperparameters.


def test_a_schedule_of_which_nothing_is_in_force_is_said_as_before(
    tmp_path: pathlib.Path,
    always_load: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warnings do not depend on whether a state was read."""

    def forgetful(meta: Any) -> Any:
        return init({})

    said = []
    for name in ("own", "loaded"):
        caplog.clear()
        run, _ = opened(tmp_path / name, FixedSchedule(rates))
        with run.worker() as worker:
            train(worker, Loop(forgetful, train_step))
        said.append([text for text in caplog.messages if "assigned" in text])
        run.close()
        always_load()
    assert said[0]
    assert said[0] == said[1]


def test_a_change_of_structure_calls_adapt_with_what_was_saved(
    tmp_path: pathlib.Path,
) -> None:
    """A state that does not fit is read, as before."""
    run, _ = opened(tmp_path, FixedSchedule({0: {"wide": 0}, 2: {"wide": 1}}))

    def shaped(meta: Any) -> Any:
        return {"w": jnp.zeros(3)} | ({"more": jnp.zeros(1)} if meta["wide"] else {})

    seen = []

    def adapt(saved: Any, donor: Any, fresh: Any) -> Any:
        seen.append((saved["w"].tolist(), donor))
        return {**fresh, "w": saved["w"]}

    with run.worker() as worker:
        worker.poll()
        state = worker.restore(shaped)
        worker.step += 2
        worker.report(1.0, state := {"w": state["w"] + 1})
        assert worker.poll()
        found = worker.restore(shaped, adapt=adapt)
    assert seen == [([1.0] * 3, {"wide": 0})]
    assert found["w"].tolist() == [1.0] * 3
    assert found["w"] is not state["w"]
    run.close()
