"""Programs for the seed run after a search-and-replace of its root."""

from __future__ import annotations

import importlib
import itertools
import textwrap
import types
from typing import Any

import numpy as np
import pytest

import mutators
import population
from population import mutators as rooms

# The seed's quick start, as far as its interface goes: names, arguments and their
# order, "" as the first generation, raw params, an impure mutation, an endless loop.
QUICK_START = """
from learned_optimization.population import population as pop_mod
from learned_optimization.population.mutators import winner_take_all_genetic


def mutate_fn(hparams):
    return {"log_lr": hparams["log_lr"] + np.random.normal() * 0.1}


mutator = winner_take_all_genetic.WinnerTakeAllGenetic(mutate_fn, steps_per_exploit=100)
population = pop_mod.PopulationController(
    [{"log_lr": np.log(1e-4)} for i in range(2)], mutator
)


gen_id = ""
hparams = None
params = None
step = 0

while True:
    new_data = population.maybe_get_worker_data(
        worker_id, gen_id, step, params, meta_params
    )
    if new_data:
        params = new_data.params
        hparams = new_data.meta_params
        gen_id = new_data.generation_id
        step = new_data.step
        if params is None:
            params = init_params()
    params = train_model_one_step(params, hparams)
    step += 1
    if step % 10 == 0:
        loss = loss_fn(params)
        population.set_eval(worker_id, gen_id, step, params, loss)
"""
ROOT = "learned_optimization.population"


def given() -> dict[str, Any]:
    """What the quick start takes for granted; its model is a point on a parabola."""
    return {
        "np": np,
        "meta_params": None,
        "init_params": lambda: 2.0,
        "train_model_one_step": lambda w, h: w - np.exp(h["log_lr"]) * 2 * w,
        "loss_fn": lambda w: w**2,
    }


def trained(code: str) -> dict[str, Any]:
    """The variables of the quick start, after 410 steps of each of its two workers.

    They take turns: its loop is the body of a generator.
    """
    np.random.seed(0)
    found = given()
    setup, loop = code.split('gen_id = ""')
    body = textwrap.indent(f'gen_id = ""{loop}    yield\n', "    ")
    code = f"{setup}def work(worker_id):\n{body}"
    exec(compile(code, "quick start", "exec"), found)
    loops = [found["work"](worker_id) for worker_id in range(2)]
    for _ in itertools.repeat(None, 410):
        for loop in loops:
            next(loop)
    return found


def test_the_quick_start_runs_with_another_root() -> None:
    """Nothing else in it changes, and each 100 steps both continue from the winner."""
    found = trained(QUICK_START.replace(ROOT, "population"))
    assert found["pop_mod"].PopulationController is population.PopulationController
    controller = found["population"]
    assert [controller.newest(worker_id).step for worker_id in range(2)] == [410, 410]
    assert len({checkpoint.generation_id for checkpoint in controller.history()}) == 10
    best = controller.best()
    assert best.value < 4.0
    rates = [entry.meta_params["log_lr"] for entry in controller.lineage(best)]
    assert len(set(rates)) == 5


def test_the_quick_start_runs_with_the_mutators_of_a_checkout() -> None:
    """There the policies have a package of their own at the top."""
    code = QUICK_START.replace(f"{ROOT}.mutators", "mutators")
    found = trained(code.replace(ROOT, "population"))
    assert found["winner_take_all_genetic"] is rooms.winner_take_all_genetic


def test_the_module_with_the_name_of_the_package_has_the_same_objects() -> None:
    """In each form of the import; and nothing is missing that the seed has there."""
    import population.population as by_name
    from population import population as from_package
    from population.population import PopulationController as Controller

    assert by_name is from_package
    assert Controller is population.PopulationController
    names = {name for name in vars(by_name) if not name.startswith("_")}
    assert {"PopulationController", "ActiveWorker", "Checkpoint"} <= names
    for name in names:
        assert getattr(by_name, name) is getattr(population, name)


@pytest.mark.parametrize("kind", rooms.REGISTRY.values(), ids=lambda k: k.__name__)
def test_the_signpost_has_the_module_of_each_policy(kind: type) -> None:
    """`from mutators import fixed_schedule` finds it, and so does `import`."""
    module = kind.__module__.rpartition(".")[2]
    found = getattr(mutators, module)
    assert isinstance(found, types.ModuleType)
    assert found is importlib.import_module(f"mutators.{module}")
    assert found is importlib.import_module(kind.__module__)
    assert getattr(found, kind.__name__) is kind


@pytest.mark.parametrize("module", ["exploit", "explore", "rounds", "standings"])
def test_the_signpost_has_the_modules_that_policies_share(module: str) -> None:
    """For policies of one's own, in both forms of the import."""
    found = importlib.import_module(f"mutators.{module}")
    assert getattr(mutators, module) is found
    assert found is importlib.import_module(f"population.mutators.{module}")


@pytest.mark.parametrize("name", rooms.__all__)
def test_the_signpost_has_each_public_name(name: str) -> None:
    """Also those that are no policy, such as `MutationContext`."""
    assert getattr(mutators, name) is getattr(rooms, name)
