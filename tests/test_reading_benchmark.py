"""The benchmark of reading runs with tiny sizes, and judges its goals."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks import render
from benchmarks.speed import reading


def test_each_goal_of_reading_is_judged_and_shown(tmp_path: pathlib.Path) -> None:
    """Seconds, megabytes, and how much a reader slows reports."""
    out = tmp_path / "reading.json"
    reading.main(["--quick", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    goals = [f["at_most"] for f in figures if "at_most" in f]
    assert goals == [2.0, 500.0, 2.0, 1.05]
    text = render.render([out])
    for figure in figures:
        assert f"| {figure['what']} |" in text


def test_quick_figures_are_no_results() -> None:
    """They must not replace the committed ones."""
    with pytest.raises(SystemExit):
        reading.main(["--quick"])
