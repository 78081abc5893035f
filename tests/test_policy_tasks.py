"""The tasks of the policies' benchmark, and what the policies find on them."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from benchmarks import render
from benchmarks.quality import lockstep, policies, policy_tables
from benchmarks.quality.tasks import Enduro, Noisy, Problem, Static, Toy, Track
from population import Mutator, PopulationController
from population.mutators import REGISTRY, PopulationBasedTraining
from population.space import Perturb


def value_of(problem: Problem, schedule: Any) -> float:
    """The true value of one member that trains with a schedule, `[rounds, h]`."""
    states = problem.begin(1)
    for number, settings in enumerate(schedule):
        states = problem.train(states, np.array([settings], float), number)
    return float(problem.values(states)[0])


def test_the_plain_toy_is_its_closed_form() -> None:
    """Theta falls by 1 - 0.002 (2 - h) in each of 1,000 steps; 1.1997 is the most."""
    for h in (1e-4, 0.3, 1.1):
        theta = 0.9 * (1 - 0.002 * (2 - h)) ** 1000
        assert value_of(Toy(), [[h]] * 50) == pytest.approx(1.2 - theta**2)
    assert value_of(Toy(), [[1e-4]] * 50) == pytest.approx(1.1997, abs=5e-5)


def test_the_deceptive_toys_optimum_is_its_schedule() -> None:
    """Greedy is to take the least h at once; 1.1979 is the most."""
    schedule = [[max(1 - k / 50, 1e-4)] for k in range(50)]
    assert value_of(Toy(0.2), schedule) == pytest.approx(1.1979, abs=5e-4)
    greedy = [[1e-4]] * 50
    assert value_of(Toy(0.2), greedy[:3]) > value_of(Toy(0.2), schedule[:3])
    assert value_of(Toy(0.2), greedy) < 1.0


def test_the_noisy_quadratic_is_its_recursion() -> None:
    """Twenty steps of the second moments, one by one."""
    problem = Noisy()
    state = problem.begin(1)
    for number, u in enumerate((0.9, 0.4)):
        expected = state[0].copy()
        rate = 10 ** (3 * u - 3)
        for _ in range(20):
            for k, (c, n) in enumerate(((1.0, 1.0), (0.02, 25.0))):
                expected[k] = (1 - rate * c) ** 2 * expected[k] + rate**2 * c**2 * n
        state = problem.train(state, np.array([[u]]), number)
        assert state[0] == pytest.approx(expected)
    loss = 0.5 * state[0, 0] + 0.01 * state[0, 1]
    assert problem.values(state)[0] == pytest.approx(-np.log10(loss))


def test_the_static_optimum_is_worth_one_and_each_change_costs() -> None:
    """The first round has nothing to change from."""
    problem = Static(3)
    best = problem.optimum.tolist()
    assert value_of(problem, [best] * 50) == pytest.approx(1)
    assert problem.statics().tolist() == [best]
    near = [best[0], best[1] + 1e-9]
    changes = [best, near] * 25
    assert value_of(problem, changes) == pytest.approx(1 - 49 * 0.3 / 50)
    assert value_of(problem, [[2.0, 2.0]] * 50) == 0


def test_the_tracked_optimum_is_worth_one_and_moves_slowly() -> None:
    """By at most the speed in each coordinate, and towards a goal within [0, 1]."""
    problem = Track(5)
    assert value_of(problem, problem.path) == pytest.approx(1)
    moves = np.abs(np.diff(problem.path, axis=0))
    assert moves.max() == pytest.approx(0.03)
    assert problem.path.min() >= 0
    assert problem.path.max() <= 1
    assert Track(6).path.tolist() != problem.path.tolist()
    assert value_of(problem, [[0.5] * 3] * 50) < 1


def table(path: pathlib.Path) -> dict[tuple[Any, ...], float]:
    """Write a table with the format of Enduro's; return the return of each run."""
    pairs = list(itertools.product((-5, -4, -3), (0.95, 0.98, 0.99)))
    rng, rows, known = np.random.default_rng(0), [], {}
    firsts, seconds = rng.random((9, 3)), rng.random((9, 9, 3))
    for a, b, c, seed in itertools.product(range(9), range(9), range(9), range(3)):
        third = float(rng.random())
        parts = [firsts[a, seed], seconds[a, b, seed], third]
        curve = np.repeat(parts, [30, 30, 40])
        rows.append((curve, [pairs[k] for k in (a, b, c)], seed))
        known[pairs[a], pairs[b], pairs[c], seed] = third
    np.savez(
        path,
        returns=[row[0] for row in rows],
        lr=[[pair[0] for pair in row[1]] for row in rows],
        gamma=[[pair[1] for pair in row[1]] for row in rows],
        seed=[row[2] for row in rows],
    )
    return known


def test_enduro_is_looked_up(tmp_path: pathlib.Path) -> None:
    """The last segment that was trained counts; remapped, another setting has it."""
    path = tmp_path / "enduro.npz"
    known = table(path)
    rng = np.random.default_rng(1)
    pairs = list(itertools.product((-5, -4, -3), (0.95, 0.98, 0.99)))
    for _ in range(20):
        schedule = [pairs[k] for k in rng.integers(9, size=3)]
        seed = int(rng.integers(3))
        problem = Enduro(path, 0, only=seed)
        assert value_of(problem, schedule) == pytest.approx(known[(*schedule, seed)])
    best = max(np.mean([known[p, p, p, s] for s in range(3)]) for p in pairs)
    assert lockstep.static(Enduro(path, 0)) == pytest.approx(best)
    remapped = Enduro(path, 0, remap=1, only=0)
    every = [value_of(remapped, s) for s in itertools.product(pairs, repeat=3)]
    expected = [known[(*s, 0)] for s in itertools.product(pairs, repeat=3)]
    assert sorted(every) == pytest.approx(sorted(expected))
    assert every != pytest.approx(expected)


@pytest.mark.parametrize("task", [Toy(0.2), Noisy(), Static(0), Track(0)])
@pytest.mark.parametrize("initial", ["random", "stratified"])
def test_a_schedule_trained_with_again_is_worth_what_it_was(
    task: Problem, initial: str
) -> None:
    """Only reports have noise: the lineage that was found can be replayed."""
    mutator = PopulationBasedTraining(Perturb(task.space), 2)
    for found in (
        lockstep.found_by(mutator, task, 6, 3, initial),
        lockstep.searched(task, 6, 3, initial),
    ):
        assert found.again == pytest.approx(found.value, abs=1e-12)


def by_controller(
    mutator: Mutator[Any], problem: Problem, size: int, seed: int
) -> tuple[Any, Any]:
    """Train as `Lockstep` does, but with a journal; all decisions and last reports."""
    controller = PopulationController.from_space(
        problem.space, size, mutator, initial="random", mode="max", seed=seed
    )
    work, states = dict(enumerate(controller.workers)), problem.begin(size)
    rng = lockstep.noise_of(seed)
    kept, settings = [], []  # A report's params are the place of its state in `kept`.
    for number in range(problem.rounds):
        settings.append([work[w].meta_params for w in range(size)])
        rows = np.array([[m[k] for k in problem.space] for m in settings[-1]])
        states = problem.train(states, rows, number)
        kept.append(states.copy())
        reports = problem.values(states) + problem.noise * rng.normal(size=size)
        news = controller.set_evals(
            (w, work[w].generation_id, number + 1, number * size + w, float(reports[w]))
            for w in range(size)
        )
        for w, new in news.items():
            work[w] = new
            states[w] = kept[new.params // size][new.params % size]
    return settings, reports.tolist()


@pytest.mark.parametrize("name", policies.POLICIES)
@pytest.mark.parametrize("task", ["deceptive", "noisy", "static", "track", "Enduro"])
def test_lockstep_decides_as_a_controller_does(
    name: str, task: str, tmp_path: pathlib.Path
) -> None:
    """Bit for bit: the same hyperparameters in each round, and the same reports."""
    size, seed = 16, 5
    if task == "Enduro":
        table(tmp_path / "enduro.npz")
    problem = policies.problem(task, 7, tmp_path / "enduro.npz")
    found: list[Any] = []

    class Noted(lockstep.Lockstep):
        def report(self, values: Any) -> Any:
            found.append(list(self.settings))
            return super().report(values)

    def make() -> Mutator[Any]:
        mutator = policies.POLICIES[name](problem, size)
        assert mutator is not None
        return mutator

    members = lockstep.first_members(problem, size, seed, "random")
    noted = Noted(make(), members, seed)
    rng = lockstep.noise_of(seed)
    _, reports = lockstep.train(noted, problem, rng)
    expected = by_controller(make(), problem, size, seed)
    assert (found, reports.tolist()) == expected


def test_random_search_is_a_policy_that_never_decides() -> None:
    """The arrays of the search are what the controller does without decisions."""
    for task in (Toy(0.2), Static(4, noise=0.0)):
        never = PopulationBasedTraining(None, 1, exploit=None)
        expected = lockstep.found_by(never, task, 7, 11, "random")
        assert lockstep.searched(task, 7, 11, "random") == expected


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of few runs."""
    folder = tmp_path_factory.mktemp("policies")
    table(folder / "enduro.npz")
    out = folder / "policies.json"
    policies.main(
        ["--quick", "--out", str(out), "--enduro", str(folder / "enduro.npz")]
    )
    found: dict[str, Any] = json.loads(out.read_text())
    return found


START = {"start": "stratified"}


def means(result: dict[str, Any], task: str, size: int) -> dict[str, float]:
    """The mean of each policy with a random first population."""
    return {
        row["policy"]: row["value"]["mean"]
        for row in result["cells"]
        if (row["task"], row["size"], row["initial"]) == (task, size, "random")
    }


def test_the_order_of_the_main_rows(result: dict[str, Any]) -> None:
    """What the page on PBT says of the deceptive toy: greed is worse than luck."""
    found = means(result, "deceptive", 22)
    search = found[policy_tables.SEARCH]
    truncation = found["truncation 0.2, each round"]
    third = found["top third, each round"]
    rare = found["truncation 0.25, ten times"]
    assert third < truncation < search < rare
    assert found[policy_tables.OURS] > 1.18
    assert found[policy_tables.OURS] > search + 0.05
    plain = means(result, "plain", 22)
    assert min(plain[policy_tables.OURS], plain["truncation 0.2, each round"]) > 1.199
    assert plain[policy_tables.SEARCH] < 1.195


def test_every_policy_that_trains_a_population_is_measured() -> None:
    """All but the schedule, which trains each replay, and that of one worker."""
    problem = Toy()
    kinds = {type(make(problem, 16)) for make in policies.POLICIES.values()}
    others = {REGISTRY["fixed"], REGISTRY["explore"]}
    assert kinds == set(REGISTRY.values()) - others


def test_the_tables_have_each_policy_and_each_task(result: dict[str, Any]) -> None:
    """Also the best static, and the counts of gains over random search."""
    *sizes, gains, starts = result["tables"]
    assert [found["title"] for found in sizes] == ["22 members"]
    (main,) = sizes
    assert main["columns"] == ["", "plain", "deceptive", "Enduro", "Enduro, replayed"]
    names = [row[0] for row in main["rows"]]
    assert names[0] == policy_tables.SEARCH
    assert names[-1] == policy_tables.BEST
    assert {policy_tables.OURS, *policies.POLICIES} - set(names) == {
        "MultiFrequencyPBT"
    }
    assert [row[0] for row in starts["rows"]] == [
        f"{policy}, {size} members" for policy in policies.BOTH_WAYS for size in (22,)
    ]
    assert gains["columns"][1:-1] == ["8 members", "22 members"]
    rows = {row[0]: row[1:-1] for row in gains["rows"]}
    both = {f"{name}, stratified start" for name in policies.BOTH_WAYS[1:]}
    assert rows.keys() == {*policies.POLICIES} | both
    for name, counts in rows.items():
        for size, text in zip((8, 22), counts, strict=True):
            own = [
                cell
                for cell in result["cells"]
                if (cell["policy"], cell["size"], cell["initial"])
                == (name.partition(", strat")[0], size, START.get(name[-5:], "random"))
            ]
            assert sum(map(int, text.split(" / "))) == len(own) if text else not own


def test_the_tables_are_rendered(
    result: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """Each cell of each table is in the page."""
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(result))
    text = render.render([path])
    for found in result["tables"]:
        assert f"### {found['title']}" in text
        for row in found["rows"]:
            assert "| " + " | ".join(row) + " |" in text
