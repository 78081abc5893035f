"""A member that keeps its own weights costs the stacked engine no copy and no load."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from population import Branch, Mutator, PopulationView, Report
from population.engines.stacked.stack import Stack
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests.engines.stacked import problems
from tests.params.stores import CountedFiles

SIZE = 4
RATE = {"learning_rate": 0.01}
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
def test_new_hyperparameters_alone_copy_and_read_nothing(
    tmp_path: pathlib.Path,
    copies: Counter[str],
    policy: str,
    save_every: int,
    batching: str,
) -> None:
    """Whether the weights are saved or not; the only copies are those of the best."""
    store = CountedFiles(tmp_path)
    run = problems.controller(
        POLICIES[policy](), SIZE, 12, tmp_path / "run", params=store
    )
    options: dict[str, Any] = {"save_every": save_every, "batching": batching}
    problems.run(run, problems.PLAIN, **options)
    assert len(list(run.graph)) == SIZE * 7
    assert store.loaded == []
    assert (copies["move"], copies["put"]) == (0, 0)
    assert copies["take"] <= (0 if save_every == 1 else 5)
    run.close()


@pytest.mark.parametrize(("save_every", "expected"), [(1, 4), (100, 0)])
def test_a_member_that_diverges_then_goes_back_to_its_last_save(
    save_every: int, expected: int
) -> None:
    """Like one that trains on with the hyperparameters that it had."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        found = report.checkpoint
        if report.worker_id == 0 and found.step == 4 and view.begins[0] == 0:
            return {0: Branch(found, {"learning_rate": 1e30})}
        if not found.diverged:
            return {}
        point = view.graph.resume_point(found)
        back.append(point.step)
        return {report.worker_id: Branch(point if point.step else None, RATE)}

    back: list[int] = []
    run = problems.controller(problems.Branching(decide), SIZE, 12)
    problems.run(run, problems.PLAIN, save_every=save_every)
    assert back[0] == expected
    assert run.newest(0).step == 12


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
