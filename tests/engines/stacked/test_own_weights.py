"""A member that keeps its own weights costs the stacked engine no load."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from population import Mutator
from population.engines.stacked.stack import Stack
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests.engines.stacked import problems
from tests.params.stores import CountedFiles

SIZE = 4
POLICIES: dict[str, Callable[[], Mutator[Any]]] = {
    "schedule": lambda: FixedSchedule(lambda step: {"learning_rate": 0.1 / (1 + step)}),
    "explore": lambda: PopulationBasedTraining(
        problems.mutate, 2, exploit=None, synchronous=True
    ),
}


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many rows were copied: into another row, into a row, and out of one."""
    found: Counter[str] = Counter()

    def counted(name: str) -> None:
        original = getattr(Stack, name)

        def method(self: Stack, *args: Any) -> Any:
            found[name] += len(args[0]) if name == "move" else 1
            return original(self, *args)

        monkeypatch.setattr(Stack, name, method)

    for name in ("move", "put", "take"):
        counted(name)
    return found


@pytest.mark.parametrize("batching", problems.BATCHINGS)
@pytest.mark.parametrize("save_every", [1, 2, 100])
@pytest.mark.parametrize("policy", ["schedule", "explore"])
def test_new_hyperparameters_alone_move_and_read_nothing(
    tmp_path: pathlib.Path,
    copies: Counter[str],
    policy: str,
    save_every: int,
    batching: str,
) -> None:
    """What is not saved is kept once, so that the member can go back to it."""
    store = CountedFiles(tmp_path)
    run = problems.controller(
        POLICIES[policy](), SIZE, 12, tmp_path / "run", params=store
    )
    options: dict[str, Any] = {"save_every": save_every, "batching": batching}
    problems.run(run, problems.PLAIN, **options)
    assert len(list(run.graph)) == SIZE * 7
    assert store.loaded == []
    assert (copies["move"], copies["put"]) == (0, 0)
    assert save_every > 1 or not copies["take"]
    run.close()


def test_a_copy_moves_the_row_of_its_donor_alone(
    tmp_path: pathlib.Path, copies: Counter[str]
) -> None:
    """The other members stay where they are, and nothing is read."""
    store = CountedFiles(tmp_path)
    run = problems.controller(problems.pbt(4), SIZE, 12, tmp_path / "run", params=store)
    problems.run(run, problems.PLAIN, save_every=1)
    # The decision at the end of the run is not trained on.
    made = [name for name in run.graph if len(run.graph[name]) > 1]
    assert copies["move"] == len(made) - SIZE > 0
    assert copies["put"] == 0
    assert store.loaded == []
    run.close()
