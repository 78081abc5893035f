"""The benchmark of saving runs with tiny sizes, and shows what it has measured."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from benchmarks import render
from benchmarks.speed import footprint, removals, saved_loops, savers, saving


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The file with the results of one run."""
    file = tmp_path_factory.mktemp("bench") / "saving.json"
    saving.main(["--quick", "--out", str(file)])
    return file


@pytest.fixture(scope="module")
def figures(out: pathlib.Path) -> list[dict[str, Any]]:
    """Its figures."""
    found: list[dict[str, Any]] = json.loads(out.read_text())["figures"]
    return found


def test_each_goal_of_saving_is_judged(figures: list[dict[str, Any]]) -> None:
    """Saves and loads, memory, loops, stacks and removal have their goals."""
    goals = [(f["at_most"], f["what"]) for f in figures if "at_most" in f]
    assert [goal for goal, _ in goals] == [1.3] * 4 + [10, 2, 2, 1.8, 2, 1.2]
    assert [what for goal, what in goals if goal == 1.3] == [
        "`FileParams.save`",
        "`FileParams.save`",
        "`FileParams.load`",
        "`FileParams.load`, into a tree `like`",
    ]
    for figure in figures:
        if "at_most" in figure:
            judged = figure.get("ratio") or figure["value"]
            assert judged["low"] <= judged["median"] <= judged["high"]
            assert figure["met"] == (judged["median"] <= figure["at_most"])


def test_each_figure_of_saving_is_shown(
    out: pathlib.Path, figures: list[dict[str, Any]]
) -> None:
    """The README has a row for each of them."""
    shown = render.render([out])
    assert "## Saving" in shown
    for figure in figures:
        assert f"### {figure['section']}" in shown
        assert f"| {figure['what']} |" in shown


def test_a_way_to_save_has_a_figure_or_a_reason(
    figures: list[dict[str, Any]],
) -> None:
    """What is not installed is named in each table of the large state."""
    for name in (savers.SAFETENSORS, savers.ORBAX):
        rows = [f for f in figures if f["what"] == name and "arrays" in f["section"]]
        assert len(rows) == 3
        assert all("ratio" in row or "not installed" in row["note"] for row in rows)
    assert any("ratio" in f for f in figures if f["what"] == savers.ORBAX)


def test_a_quick_look_is_no_result() -> None:
    """Tiny sizes overwrite no results."""
    with pytest.raises(SystemExit):
        saving.main(["--quick"])


@pytest.mark.parametrize(
    "name", [name for name in savers.NAMES if savers.is_installed(name)]
)
def test_what_is_loaded_is_what_was_saved(name: str, tmp_path: pathlib.Path) -> None:
    """A load that read only a part of a state would seem fast."""
    saver = savers.make(name, tmp_path)
    tree = savers.state(arrays=2, floats=1000)
    for _ in range(2):  # A removed save is not in the way of the next one.
        saver.save(tree)
        saver.sync()
        found = saver.load(tree)
        whole = b"".join(np.asarray(leaf).tobytes() for leaf in tree.values())
        if isinstance(found, dict):
            assert found.keys() == tree.keys()
            parts = [np.asarray(found[key]).tobytes() for key in tree]
        else:
            parts = [np.asarray(found).tobytes()]
        assert b"".join(parts) == whole
        saver.remove()


def test_the_footprint_counts_what_is_held_and_given_back(
    tmp_path: pathlib.Path,
) -> None:
    """A save that copies the state twice needs twice its bytes."""

    class Copying(savers.Raw):
        def save(self, tree: savers.Tree) -> None:
            held = [np.array(leaf) for _ in range(2) for leaf in tree.values()]
            super().save(tree)
            del held

    # So large that each copy is mapped by itself, whatever ran here before.
    tree = {"weights": np.ones(10_000_000, np.float32)}
    found = footprint.measured(Copying(tmp_path), tree)
    assert found.save == pytest.approx(2, abs=0.2)
    assert found.load == pytest.approx(0, abs=0.2)


def test_removal_is_counted_beside_a_run_that_keeps_everything(
    tmp_path: pathlib.Path,
) -> None:
    """The bytes that are held are those of saves without those of removals."""
    size, count = 1000, 60
    removing = removals.run(tmp_path, count, size, 0, looks=True)
    keeping = removals.run(tmp_path, count, size, 0, keeps=True)
    assert keeping.removed == 0
    assert keeping.most >= count * size * 4
    assert removing.removed > count // 2
    assert removing.removing_s > 0
    assert 0 < removing.peak
    assert removals.MEMBERS * size * 4 <= removing.most <= keeping.most


def test_members_of_loops_begin_together(tmp_path: pathlib.Path) -> None:
    """A worker that would begin alone says so."""
    begin = saved_loops.Begin(tmp_path, 1)
    begin.wait()
    late = saved_loops.Begin(tmp_path, 2)
    with pytest.raises(TimeoutError, match="2 workers must begin together"):
        late.wait(patience_s=0.0)
