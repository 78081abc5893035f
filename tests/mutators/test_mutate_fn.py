"""What a user's `mutate_fn` may ask for, by the names of its parameters."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import Mutator, PopulationController
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    MultiFrequencyPBT,
    MutationContext,
    PopulationBasedTraining,
    SuccessiveHalving,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.explore import Explore
from tests import probe

POLICIES: dict[str, Callable[[Any], Mutator[Any]]] = {
    "winner": lambda fn: WinnerTakeAllGenetic(fn, 3),
    "pbt": lambda fn: PopulationBasedTraining(fn, 3),
    "together": lambda fn: PopulationBasedTraining(fn, 3, synchronous=True),
    "weights only": lambda fn: PopulationBasedTraining(fn, 3, copy_meta_params=False),
    "explores": lambda fn: PopulationBasedTraining(fn, 3, exploit=None),
    "two_speed": lambda fn: TwoSpeedPBT(fn, 3, slow=1, z=0.0),
    "multi": lambda fn: MultiFrequencyPBT(fn, 3, (1,)),
    "halving": lambda fn: SuccessiveHalving(fn, 2, 2),
}


def train(mutator: Mutator[Any], size: int = 4, *, nan_at: int = 7) -> Any:
    """A run in which the values differ, and all diverge once."""
    controller = PopulationController([{"h": w} for w in range(size)], mutator)
    probe.end_nothing(controller)
    for number in range(1, 13):
        for worker_id in range(size):
            present = controller.workers[worker_id]
            value = math.nan if number == nan_at else present.meta_params["h"] + number
            place = worker_id, present.generation_id, present.step + 1
            controller.set_eval(*place, f"{number}", value)
    return controller


@pytest.mark.parametrize("name", POLICIES)
def test_the_context_is_that_of_the_branch(name: str) -> None:
    """Each record belongs to a generation: its slot, its parent, its parent's step."""
    asked: list[tuple[dict[str, Any], MutationContext, float]] = []

    def mutate(meta_params: Any, rng: Any, context: MutationContext) -> Any:
        own = float(context.view.scores[context.worker_id])
        asked.append((dict(meta_params), context, own))
        return {"h": len(asked)}

    controller = train(POLICIES[name](mutate), 4)
    assert len(asked) > 3
    for number, (meta_params, context, _) in enumerate(asked, start=1):
        (branch,) = [
            controller.graph.root(generation_id)
            for generation_id in controller.graph
            if controller.graph.root(generation_id).meta_params == {"h": number}
            and controller.graph.root(generation_id).reason != "start"
        ]
        assert branch.worker_id == context.worker_id
        assert (branch.parent, branch.step) == (context.donor.ref, context.step)
        lineage = controller.graph.walk(controller.graph.checkpoint(branch.parent))
        values = [c.value for c in lineage if c.value is not None]
        assert context.score == (values[0] if values else math.inf)
        if name != "weights only":
            assert meta_params == dict(context.donor.meta_params)


def test_the_context_is_the_same_for_a_function_that_does_not_ask() -> None:
    """Asking for it changes neither the random numbers nor the decisions."""

    def plain(meta_params: Any, rng: np.random.Generator) -> Any:
        return {"h": meta_params["h"] + float(rng.normal())}

    def curious(
        meta_params: Any, rng: np.random.Generator, context: MutationContext
    ) -> Any:
        return {"h": meta_params["h"] + float(rng.normal())}

    for make in POLICIES.values():
        runs = [train(make(fn)) for fn in (plain, curious)]
        found = [
            [(c.worker_id, c.step, c.meta_params, c.reason) for c in run.history()]
            for run in runs
        ]
        assert found[0] == found[1]


def test_the_context_cannot_be_changed() -> None:
    """It is a record of the decision."""
    found: list[MutationContext] = []

    def mutate(meta_params: Any, *, context: MutationContext) -> Any:
        found.append(context)
        meta_params["h"] += 1
        return meta_params

    train(WinnerTakeAllGenetic(mutate, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].step = 3  # type: ignore[misc]
    assert all(context.donor.diverged is False for context in found)


def test_the_line_search_passes_it_after_its_own_arguments() -> None:
    """Direction and cycle come first; the donor is the checkpoint of all trials."""
    found: list[tuple[str, int, int]] = []

    def mutate(
        meta_params: Any, direction: str, cycle: int, context: MutationContext
    ) -> Any:
        found.append((direction, cycle, context.step))
        return meta_params

    train(BranchingSingleMachine(mutate, 2, 2), 1, nan_at=99)
    assert found[:2] == [("neg", 0, 0), ("pos", 0, 0)]


@pytest.mark.parametrize(
    "mutate",
    [
        lambda meta_params: meta_params,
        lambda meta_params, rng: meta_params,
        lambda meta_params, context: meta_params,
        lambda meta_params, context, rng: meta_params,
        lambda meta_params, *, rng, context: meta_params,
        lambda meta_params, scale=2, **others: meta_params,
        lambda *arguments: arguments[0],
    ],
)
def test_a_function_gets_what_it_names(mutate: Any) -> None:
    """In any order, by position or keyword; the others are not passed."""
    train(WinnerTakeAllGenetic(mutate, 3))


@pytest.mark.parametrize(
    ("mutate", "surplus"),
    [
        (lambda meta_params, generator: meta_params, "generator"),
        (lambda meta_params, ctx: meta_params, "ctx"),
        (lambda meta_params, rng, scale: meta_params, "scale"),
        (lambda meta_params, rng, /: meta_params, "rng"),
        (lambda meta_params, ctx, rng: meta_params, "ctx"),
        (lambda meta_params, rng, context, more: meta_params, "more"),
        (lambda meta_params, *, key: meta_params, "key"),
    ],
)
def test_a_parameter_for_which_there_is_nothing_is_named(
    mutate: Any, surplus: str
) -> None:
    """Before the run begins, and not at its first decision."""
    with pytest.raises(TypeError, match=rf"also needs {surplus}\. Name the random"):
        WinnerTakeAllGenetic(mutate, 3)


@pytest.mark.parametrize(
    ("mutate", "misplaced"),
    [
        (lambda rng, meta_params: meta_params, "rng"),
        (lambda context: context, "context"),
        (lambda rng=None: rng, "rng"),
    ],
)
def test_the_hyperparameters_come_first(mutate: Any, misplaced: str) -> None:
    """They are passed by position; else a parameter would be passed twice."""
    with pytest.raises(TypeError, match=f"first, got {misplaced} in the place of one"):
        WinnerTakeAllGenetic(mutate, 3)


def test_every_policy_with_a_mutate_fn_is_tried_here() -> None:
    """Those without one have a reason: a schedule in its place."""
    takes = {
        kind
        for kind in REGISTRY.values()
        if "mutate_fn" in inspect.signature(kind).parameters
    }
    tried = {type(make(lambda m: m)) for make in POLICIES.values()}
    assert takes == tried | {BranchingSingleMachine}


def test_a_function_without_a_signature_is_called_with_meta_params() -> None:
    """Some of the functions of Python have none."""
    explore = Explore(max)
    controller = train(WinnerTakeAllGenetic(lambda m: m, 3), nan_at=99)
    newest = controller.newest(0)
    view = probe.view(controller)
    assert explore(view, 0, newest, [1, 2]) == 2
