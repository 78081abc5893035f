"""The benchmarks of quality: their intervals, and a run of tiny sizes."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from benchmarks import record, render
from benchmarks.quality import complex_cnn
from benchmarks.quality.statistics import differences, interval


def test_an_interval_is_students() -> None:
    """Three samples of deviation 1: a tabulated 4.3027 standard errors to each side."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_an_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    """This holds for only five samples, too."""
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(1.0, 3.0, 5).tolist()) for _ in range(2000)]
    share = np.mean([low <= 1.0 <= high for _, low, high in found])
    assert share == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_no_interval_without_two_finite_samples(samples: list[float]) -> None:
    """A diverged repetition must not be left out without an error."""
    with pytest.raises(ValueError, match="two or more finite samples"):
        interval(samples)


def test_differences_are_taken_within_a_repetition() -> None:
    """The common part of both arms of a seed cancels out."""
    assert differences([3.0, 13.0], [2.0, 12.0]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="zip"):
        differences([1.0], [1.0, 2.0])


def test_an_interval_is_shown_as_one(tmp_path: pathlib.Path) -> None:
    """A mean is not called a median in the tables."""
    figure = record.Figure("Error", "one", "%", record.Interval(2.0, 1.0, 3.0))
    assert record.shown(figure) == "Error: one; 2 % (1 to 3)"
    result = {
        "title": "Quality",
        "about": ["Of something."],
        "command": "python",
        **record.circumstances(tmp_path, []),
        "seed": "0 to 4",
        "repetitions": 5,
        "figures": [figure.as_json()],
    }
    path = tmp_path / "quality.json"
    record.write(path, result)
    text = render.render([path])
    assert "|  | mean | 95 % interval |" in text
    assert "| one | 2 % | 1 to 3 |" in text


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run of tiny sizes."""
    out = tmp_path_factory.mktemp("bench") / "complex_cnn.json"
    complex_cnn.main(["--quick", "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_both_arms_and_their_difference_are_measured(result: dict[str, Any]) -> None:
    """There are three sections, with the figures of the outcomes of each seed."""
    figures = {(f["section"], f["what"]): f["value"]["mean"] for f in result["figures"]}
    sections = {"Validation loss", "Test error", "Test cross entropy"}
    assert {section for section, _ in figures} == sections
    for section in sections:
        arms = (figures[section, "PBT"], figures[section, "random search"])
        difference = figures[section, "PBT minus random search"]
        assert difference == pytest.approx(arms[0] - arms[1], abs=2e-2)
    errors = [outcome["test_error"] for outcome in result["outcomes"]["PBT"]]
    assert len(errors) == result["repetitions"] == 2
    assert figures["Test error", "PBT"] == pytest.approx(np.mean(errors), rel=1e-3)


def test_the_arms_of_a_seed_begin_alike(result: dict[str, Any]) -> None:
    """Their first report, before any branch, is equal; only decisions differ."""
    assert result["seed"] == "0 to 1"
    first, second = (
        [
            checkpoint.meta_params
            for checkpoint in complex_cnn.population(
                arm, 3, complex_cnn.QUICK
            ).history()
        ]
        for arm in (complex_cnn.PBT, complex_cnn.SEARCH)
    )
    assert first == second
    assert len(first) == complex_cnn.QUICK.workers
