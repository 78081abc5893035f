"""Runs on eight forced host devices, compared with runs on one; prints JSON.

This is a new process, as JAX must know the devices before it starts.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from population import Mutator, PopulationController
from population.engines import vectorized
from population.engines.stacked.rounds import PopulationTrainer
from population.engines.stacked.states import SeparateStates, StackedStates
from population.mutators import PopulationBasedTraining
from tests.engines import regression
from tests.engines.stacked import retiring, test_member_states
from tests.engines.stacked.problems import BATCHINGS

Answer = dict[str, Any]
compiled = [0]
told: dict[str, set[int]] = {"devices": set(), "compiled": set()}


class Case(NamedTuple):
    """One run.

    Attributes:
        size: How many members.
        batching: How they are batched.
        source: Which argument supplies the batches.
        back: Whether slots go back to snapshots, instead of copying each other.
        devices: How many devices there may be.
    """

    size: int
    batching: str
    source: str
    back: bool = False
    devices: int = 8


CASES = {
    "as many members as devices": Case(8, "vmap", "data"),
    "a remainder": Case(13, "vmap", "batches"),
    "a remainder, back": Case(13, "vmap", "shared_batches", back=True),
    "map, fewer members": Case(5, "map", "batches"),
    "map, back": Case(13, "map", "data", back=True),
    "loop": Case(13, "loop", "batches", devices=3),
    "loop, fewer, back": Case(2, "loop", "shared_batches", back=True),
}


def mutator(case: Case) -> Mutator[Any]:
    """A policy whose branches cross devices, or one that goes back to snapshots."""
    if case.back:
        return regression.GoBack()
    return PopulationBasedTraining(regression.mutate, 10, synchronous=True)


def options(case: Case) -> Answer:
    """The arguments that supply the batches."""
    given: Answer = {
        "data": regression.batch(0, 0, 0),
        "batches": regression.batch,
        "shared_batches": regression.shared_batch,
    }
    return {case.source: given[case.source], "batching": case.batching}


def train(found: PopulationController, case: Case, devices: Any) -> None:
    """Train a run that saves at intervals; one that goes back has only snapshots."""
    vectorized.run(
        found,
        regression.init,
        regression.step,
        regression.evaluate,
        regression.EVERY,
        evaluation=regression.TARGET,
        progress=False,
        save_every=1000 if case.back else 3,
        devices=devices,
        **options(case),
    )


def compare(case: Case) -> Answer:
    """The differences between one device and all of them; None if there are none."""
    runs = []
    for count in (1, case.devices):
        for seen in told.values():
            seen.clear()
        found = regression.controller(mutator(case), case.size, steps=20)
        train(found, case, None if count == 8 else jax.devices()[:count])
        runs.append(found)
    return {
        "difference": difference(*runs),
        "branched": len(runs[1].graph) - case.size,
        "devices": sorted(told["devices"]),
        "compiled": max(told["compiled"]) - min(told["compiled"]),
    }


def difference(one: PopulationController, other: PopulationController) -> str | None:
    """Describe how two runs differ."""
    try:
        regression.assert_alike(one, other)
    except AssertionError as error:
        return str(error)
    return None


def resumed() -> Answer:
    """A run that began on eight devices, and continued on three."""
    case = CASES["a remainder"]
    whole = regression.controller(mutator(case), case.size, steps=20)
    train(whole, case, None)
    with tempfile.TemporaryDirectory() as folder:
        for steps, count in ((10, 8), (20, 3)):
            found = regression.controller(mutator(case), case.size, folder, steps)
            train(found, case, jax.devices()[:count])
            found.close()
        again = regression.controller(mutator(case), case.size, folder, 20)
        return {"difference": difference(again, whole)}


def moved(batching: str) -> Answer:
    """What rows hold after copies across devices, for each list of moves."""
    size = test_member_states.SIZE
    found = test_member_states.states(batching, devices=jax.devices()[:size])
    held = {}
    for name, sources in test_member_states.MOVES.items():
        for row in range(size):
            state = np.float32(0), np.full(2, row, np.float32)
            found.put(row, state)
        found.move(sources)
        found.put(2, found.take(4))
        found.train(np.float32(0))
        held[name] = test_member_states.sums(found)
    return held


def compacted(batching: str) -> Answer:
    """A run on two devices that compacts its stack, beside one that does not."""
    case = Case(16, batching, "batches", devices=2)
    runs, sizes = [], []
    for compacts in (True, False):
        found = regression.controller(retiring.HandingOn(5, 10, 15), 16, steps=20)
        with retiring.sizes(compacts=compacts) as new:
            train(found, case, jax.devices()[: case.devices])
        runs.append(found)
        sizes += [len(ids) for ids in new]
    ours, theirs = runs
    return {
        "sizes": sizes,
        "difference": difference(ours, theirs),
        "same": regression.values(ours) == regression.values(theirs),
    }


def watch() -> None:
    """Record where the states of runs are, and what is compiled in later rounds."""

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        compiled[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    before = PopulationTrainer._round

    def round_(population: Any, active: Any) -> Any:
        values = before(population, active)
        told["compiled"].add(compiled[0])  # Compilations between two rounds count, too.
        states: StackedStates | SeparateStates = population._parts.stack.states
        flats = [states._flat] if isinstance(states, StackedStates) else states._flats
        used = {d for flat in flats for d in flat[0].devices()}
        told["devices"].add(len(used))
        return values

    setattr(PopulationTrainer, "_round", round_)  # noqa: B010


def main() -> None:
    """All answers, by name."""
    watch()
    work: dict[str, Callable[[], Answer]] = {
        name: functools.partial(compare, case) for name, case in CASES.items()
    }
    work |= {f"moved {by}": functools.partial(moved, by) for by in ("vmap", "loop")}
    work |= {f"compacted {by}": functools.partial(compacted, by) for by in BATCHINGS}
    work["resumed"] = resumed
    answers: Answer = {"count": jax.device_count()}
    answers |= {name: ask() for name, ask in work.items()}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
