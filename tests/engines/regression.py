"""A small problem that threads and a stacked population train alike."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from population import (
    Branch,
    Checkpoint,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Stop,
    Worker,
    hyperparams,
)
from population.engines import threads, vectorized
from population.engines.stacked.member import FRESH

Meta = dict[str, Any]
EVERY = 5
TARGET = np.array([1.0, -2.0, 0.5], np.float32)
optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.9)


def metas(size: int) -> list[Meta]:
    """Learning rates from too small to nearly too large."""
    rates = np.geomspace(1e-3, 0.1, size).tolist()
    return [{"learning_rate": rate, "noise": 0.1} for rate in rates]


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Another learning rate."""
    rate = float(np.clip(meta_params["learning_rate"] * rng.choice([0.8, 1.25]), 0, 1))
    return {**meta_params, "learning_rate": rate}


def init(key: jax.Array, meta_params: Any) -> Any:
    """Random weights."""
    weights = jax.random.normal(key, (3,))
    opt_state = hyperparams.put(optimizer.init(weights), meta_params, strict=False)
    return {"weights": weights, "opt_state": opt_state}


def step(state: Any, meta_params: Any, batch: Any, key: jax.Array) -> Any:
    """A step of noisy linear regression."""
    inputs, targets = batch
    noise = meta_params["noise"] * jax.random.normal(key, (3,))

    def loss(weights: jax.Array) -> jax.Array:
        return jnp.mean((inputs @ weights - targets) ** 2)

    gradient = jax.grad(loss)(state["weights"]) + noise
    updates, opt_state = optimizer.update(gradient, state["opt_state"])
    weights = optax.apply_updates(state["weights"], updates)
    return {"weights": weights, "opt_state": opt_state}


def evaluate(state: Any, meta_params: Any, batch: Any) -> Any:
    """The distance from the target; the learning rate in force as a metric."""
    del meta_params
    rate = state["opt_state"].hyperparams["learning_rate"]
    return jnp.sum((state["weights"] - batch) ** 2), {"rate": rate}


def batch(seed: int, worker_id: int, at: int) -> Any:
    """Eight examples."""
    rng = np.random.default_rng([seed, worker_id, at])
    inputs = rng.normal(size=(8, 3)).astype(np.float32)
    return inputs, inputs @ TARGET


def shared_batch(seed: int, at: int) -> Any:
    """Eight examples that all members share."""
    return batch(seed, 0, at)


def train(worker: Worker, *, shared: bool = False) -> None:
    """The training loop of a thread: the same steps with the library's handle."""

    def fresh(meta_params: Any) -> Any:
        base = jax.random.fold_in(jax.random.key(worker.seed), worker.worker_id)
        return init(jax.random.fold_in(base, FRESH), meta_params)

    while worker.running:
        if worker.poll():
            state = worker.restore(fresh)
        of = 0 if shared else worker.worker_id
        given = batch(worker.seed, of, worker.step)
        state = _step(state, worker.meta_params, given, worker.key)
        worker.step += 1
        if worker.step % EVERY == 0:
            value, metrics = _evaluate(state, worker.meta_params, TARGET)
            worker.report(value, state, metrics)


_step = jax.jit(step)
_evaluate = jax.jit(evaluate)


def controller(
    mutator: Mutator[Any],
    size: int = 5,
    log_dir: Any = None,
    steps: int = 40,
    **rest: Any,
) -> PopulationController:
    """A population for this problem."""
    return PopulationController(
        metas(size), mutator, log_dir, stop=Stop(steps=steps), seed=3, **rest
    )


def by_threads(found: PopulationController, **options: Any) -> None:
    """Train a population in threads."""
    threads.run(functools.partial(train, **options), found, progress=False)


def stacked(found: PopulationController, **options: Any) -> vectorized.Summary:
    """Train a population as one program."""
    given: dict[str, Any] = {"batching": "vmap", "batches": batch, **options}
    if "shared_batches" in given:
        del given["batches"]
    return vectorized.run(
        found, init, step, evaluate, EVERY, evaluation=TARGET, progress=False, **given
    )


def decisions(found: PopulationController) -> list[tuple[Any, ...]]:
    """All generations without their values and without the run's token in the ids."""

    def name(ref: Ref | None) -> Any:
        return None if ref is None else (ref.generation_id.split("-", 1)[1], ref.step)

    def reason(root: Checkpoint) -> str:
        return re.sub(r"[\d.]+(e-?\d+)?", "#", root.reason)  # Values differ a little.

    roots = [found.graph.root(generation_id) for generation_id in found.graph]
    told = [(name(r.ref), name(r.parent), r.meta_params, reason(r)) for r in roots]
    return sorted(told, key=lambda root: root[0])


def values(found: PopulationController) -> dict[tuple[str, int], tuple[float, float]]:
    """All values, and the learning rates that were in force."""
    reported = [c for c in found.history() if c.value is not None]
    return {
        (c.generation_id.split("-", 1)[1], c.step): (c.value or 0.0, c.metrics["rate"])
        for c in reported
    }


def assert_alike(one: PopulationController, other: PopulationController) -> None:
    """Check that two runs decided alike, and trained alike within float tolerance."""
    assert decisions(one) == decisions(other)
    ours, theirs = values(one), values(other)
    assert ours.keys() == theirs.keys()
    for place, pair in ours.items():
        np.testing.assert_allclose(pair, theirs[place], rtol=2e-4, atol=1e-6)


def trained_again(found: PopulationController, checkpoint: Checkpoint) -> float:
    """The value of a checkpoint when only its lineage is trained once more."""
    root, *rest = found.lineage(checkpoint)
    base = jax.random.fold_in(jax.random.key(found.seed), root.worker_id)
    state = init(jax.random.fold_in(base, FRESH), root.meta_params)
    at = root.step
    for point in rest:
        base = jax.random.fold_in(jax.random.key(found.seed), point.worker_id)
        state = hyperparams.put(state, point.meta_params, strict=False)
        for now in range(at, point.step):
            given = batch(found.seed, point.worker_id, now)
            key = jax.random.fold_in(base, now)
            state = _step(state, point.meta_params, given, key)
        at = point.step
    value, _ = _evaluate(state, checkpoint.meta_params, TARGET)
    return float(value)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A state with checkpoints that are branched to later."""

    refs: list[Ref]


class GoBack(Mutator[Kept]):
    """In every third round a slot goes back to its checkpoint of a round before.

    No slot depends on another one, so that timing cannot change a run.
    """

    def init(self, view: PopulationView) -> Kept:
        """Nothing is kept yet."""
        del view
        return Kept([])

    def update(
        self, state: Kept, report: Report, view: PopulationView
    ) -> tuple[Kept, Mapping[int, Branch]]:
        """Keep what was reported; go back to what was kept."""
        checkpoint = report.checkpoint
        kept = map(view.graph.checkpoint, state.refs)
        others = [c.ref for c in kept if c.worker_id != report.worker_id]
        own = [ref for ref in state.refs if ref not in others]
        if checkpoint.step % (3 * EVERY) or checkpoint.reason == "back" or not own:
            return Kept(sorted([*others, checkpoint.ref])), {}
        parent = view.graph.checkpoint(own[-1])
        rate = 0.5 * parent.meta_params["learning_rate"]
        meta = {**parent.meta_params, "learning_rate": rate}
        return Kept(others), {report.worker_id: Branch(parent, meta, "back")}
