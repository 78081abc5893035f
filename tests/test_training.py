"""The benchmark of policies on real training, with tiny sizes."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks import render
from benchmarks.quality import stacks, training
from population import Schedule

SIZES = training.QUICK
PROBLEM = SIZES.problems[0]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run of tiny sizes."""
    out = tmp_path_factory.mktemp("bench") / "training.json"
    training.main(["--quick", "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_all_arms_are_measured_on_each_problem(result: dict[str, Any]) -> None:
    """The tables have the means over the seeds, and the paired differences."""
    for problem in SIZES.problems:
        outcomes = result["outcomes"][problem.name]
        assert tuple(outcomes) == training.ARMS
        means = {
            arm: np.mean([o["test_loss"] for o in found])
            for arm, found in outcomes.items()
        }
        tables = {table["title"]: table for table in result["tables"]}
        arms = tables[problem.name]
        gaps = tables[f"{problem.name}, {training.TWO_SPEED} minus"]
        column = arms["columns"].index("test")
        for row in arms["rows"]:
            assert float(row[column].split()[0]) == pytest.approx(
                means[row[0]], abs=1e-4
            )
        for row in gaps["rows"]:
            gap = means[training.TWO_SPEED] - means[row[0]]
            assert float(row[column].split()[0]) == pytest.approx(gap, abs=1e-4)


def test_the_tables_are_rendered(
    result: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """Each row is in the page."""
    path = tmp_path / "training.json"
    path.write_text(json.dumps(result))
    text = render.render([path])
    for table in result["tables"]:
        assert f"### {table['title']}" in text
        for row in table["rows"]:
            assert "| " + " | ".join(row) + " |" in text


def test_the_arms_of_a_seed_begin_alike() -> None:
    """All have equal hyperparameters, and equal first reports with one optimiser."""
    dataset = stacks.cut(3, PROBLEM.validation)
    functions = stacks.functions(PROBLEM, stacks.adamw)
    first = []
    for arm in training.ARMS:
        controller = training.population(arm, PROBLEM, 3)
        members = [c.meta_params for c in controller.history()]
        if arm not in training.RULES:
            training.train(controller, functions, PROBLEM, dataset)
        reports = [c.value for c in controller.history() if c.step == PROBLEM.every]
        first.append((members, reports[: PROBLEM.members]))
        controller.close()
    assert all(members == first[0][0] for members, _ in first)
    online = [reports for _, reports in first if reports]
    assert online == [online[0]] * 3


def test_a_schedule_is_trained_again_from_other_weights() -> None:
    """One member follows it; its seed is no other seed of the benchmark's."""
    low, high = ({name: x for name in stacks.SPACE} for x in (0.001, 0.01))
    step = 2 * PROBLEM.every
    replay = training.again(Schedule({0: low, step: high}), 2 * step, 3)
    functions = stacks.functions(PROBLEM, stacks.adamw)
    training.train(replay, functions, PROBLEM, stacks.cut(3, PROBLEM.validation))
    used = {c.step: c.meta_params for c in replay.history() if c.value is not None}
    replay.close()
    steps = range(PROBLEM.every, 2 * step + 1, PROBLEM.every)
    assert used == {s: low if s <= step else high for s in steps}
    assert replay.seed not in range(training.Sizes().seeds)


def test_the_three_sets_share_no_image() -> None:
    """Each seed cuts all digits anew; fewer images to decide by change no other set."""
    one, other = stacks.cut(0, 400), stacks.cut(1, 400)
    sizes = [len(split.labels) for split in (one.train, one.validation, one.test)]
    assert sizes == [600, 400, 797]
    assert not np.array_equal(one.train.images, other.train.images)

    def everything(dataset: Any) -> list[bytes]:
        parts = (dataset.train, dataset.validation, dataset.test)
        return sorted(image.tobytes() for part in parts for image in part.images)

    assert everything(one) == everything(other)
    fewer = stacks.cut(0, 100)
    assert np.array_equal(fewer.validation.images, one.validation.images[:100])
    assert np.array_equal(fewer.train.images, one.train.images)
    assert np.array_equal(fewer.test.images, one.test.images)


def trained(rule: stacks.Rule, steps: int) -> list[Any]:
    """The states of one member after each step."""
    functions = stacks.functions(PROBLEM, rule)
    meta_params = {name: 0.05 for name in stacks.SPACE}
    data = stacks.cut(0, PROBLEM.validation).train
    states = [functions.init(jax.random.key(0), meta_params)]
    step = jax.jit(functions.step)
    for number in range(steps):
        key = jax.random.key(number)
        states.append(step(states[-1], meta_params, data, key))
    return states


def moved(states: list[Any]) -> list[float]:
    """How far the weights move in each step."""
    weights = [ravel_pytree(state.weights)[0] for state in states]
    return [float(abs(b - a).max()) for a, b in itertools.pairwise(weights)]


def test_a_cosine_schedule_ends_at_zero() -> None:
    """The rate falls over the steps of the run, and AdamW's own does not."""
    far = moved(trained(stacks.cosine_adamw, PROBLEM.steps + 1))
    assert far[-1] == 0.0
    assert far[-2] < far[0] / 10
    assert moved(trained(stacks.adamw, PROBLEM.steps + 1))[-1] > far[0] / 10


def test_schedule_free_weights_are_judged_as_its_authors_say() -> None:
    """Those that are judged are the mean of the states z, by the squared rate."""
    states = trained(stacks.schedule_free_adamw, 5)
    inner = [state.opt_state.inner_state for state in states[1:]]
    rates = 0.05 * np.minimum(np.arange(1, 6) / max(PROBLEM.steps // 20, 1), 1.0)
    mean = jax.tree.map(
        lambda *z: np.average(z, axis=0, weights=rates**2), *[s.z for s in inner]
    )
    functions = stacks.functions(PROBLEM, stacks.schedule_free_adamw)
    data = stacks.cut(0, PROBLEM.validation).test
    plain = stacks.functions(PROBLEM, stacks.adamw)
    wanted, by_others, judged = (
        float(judge(state, data)[0])
        for judge, state in (
            (plain.judge, states[-1]._replace(weights=mean)),
            (plain.judge, states[-1]),
            (functions.judge, states[-1]),
        )
    )
    assert judged == pytest.approx(wanted, rel=1e-4)
    assert by_others != pytest.approx(wanted, rel=1e-4)
