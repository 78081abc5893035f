"""The columns of a run say the same as its checkpoints one by one."""

from __future__ import annotations

import contextlib
import math
import pathlib
import shutil
import sqlite3
import sys
from typing import Any

import numpy as np
import pytest

import population
from population import Checkpoint, JournalError, PopulationController, Ref
from population.base.types import InMemory
from population.journal.records import CheckpointRecord
from population.journal.sqlite import SqliteJournal
from population.reader.columns import RunColumns, flat
from population.reader.recorded_run import RecordedRun
from tests.helpers import Clock, Scripted
from tests.journey import Journey
from tests.test_formats import DATA, FORMATS


def as_columns(history: list[Checkpoint]) -> dict[str, list[Any]]:
    """The definition of the columns, checkpoint by checkpoint."""
    places = {checkpoint.ref: place for place, checkpoint in enumerate(history)}
    return {
        "row": [c.row for c in history],
        "generation_id": [c.generation_id for c in history],
        "worker_id": [c.worker_id for c in history],
        "step": [c.step for c in history],
        "value": [math.nan if c.value is None else c.value for c in history],
        "has_value": [c.value is not None for c in history],
        "diverged": [c.diverged for c in history],
        "parent": [-1 if c.parent is None else places[c.parent] for c in history],
        "time": [c.time for c in history],
        "reason": [c.reason for c in history],
        "has_params": [
            c.params is not None and type(c.params) is not InMemory for c in history
        ],
    }


def check(run: RecordedRun) -> None:
    """All columns agree with all checkpoints."""
    history, columns = list(run), run.checkpoints()
    assert columns.rows == len(history)
    for name, expected in as_columns(history).items():
        np.testing.assert_array_equal(columns[name], expected, name)
    for name in columns:
        kind, _, leaf = name.partition(".")
        if leaf:
            found = [_leaf(getattr(c, kind), leaf) for c in history]
            lacks = None if columns[name].dtype == object else math.nan
            values = [lacks if value is None else value for value in found]
            assert columns[name].tolist() == pytest.approx(values, nan_ok=True)
    _check_branches(run, history, columns)


def _leaf(tree: Any, name: str) -> Any:
    return None if tree is None else dict(population.space.trees.leaves(tree)).get(name)


def _check_branches(
    run: RecordedRun, history: list[Checkpoint], columns: RunColumns
) -> None:
    branches = run.branches()
    ids = list(dict.fromkeys(c.generation_id for c in history))
    assert branches["generation_id"].tolist() == ids
    assert [ids[at] for at in columns["generation"]] == [
        c.generation_id for c in history
    ]
    for place, generation_id in enumerate(ids):
        own = [c for c in history if c.generation_id == generation_id]
        root = own[0]
        ref = root.parent or Ref(None, -1)  # type: ignore[arg-type]
        row = {name: values[place] for name, values in branches.items()}
        assert row["checkpoints"] == len(own)
        assert (row["step"], row["last_step"]) == (root.step, max(c.step for c in own))
        assert (row["parent_generation_id"], row["parent_step"]) == tuple(ref)
        assert (row["parent"] >= 0) == (root.parent is not None)
        if root.parent is not None:
            assert history[row["parent"]].ref == root.parent
        assert (row["kind"] == "start") == (row["number"] == 0)


@pytest.mark.parametrize("seed", range(6))
def test_columns_are_the_checkpoints(tmp_path: pathlib.Path, seed: int) -> None:
    """After random reports, late values, NaN, branches, removals and retirements."""
    journey = Journey(seed, tmp_path / "run", 0.1 + 0.1 * seed)
    for _ in range(2):
        for _ in range(25):
            journey.go()
        check(journey.controller.history())
        check(population.read(str(journey.controller.log_dir)))
        journey.reopen()
    journey.controller.close()
    check(population.read(str(journey.controller.log_dir)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_of_each_format_can_be_read(name: str, tmp_path: pathlib.Path) -> None:
    """Without an upgrade of its file."""
    folder = tmp_path / "untouched"
    shutil.copytree(DATA / name, folder)
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    check(population.read(folder))
    assert before == {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_late_value_and_late_metrics_count() -> None:
    """They are in the row of their checkpoint."""
    run = PopulationController([{"x": 1.0}], Scripted())
    name = run.workers[0].generation_id
    run.set_eval(0, name, 1, "weights", None)
    run.set_eval(0, name, 2, None, 5.0)
    run.set_eval(0, name, 1, None, 3.0, {"loss": {"train": 2, "test": 3.5}})
    columns = run.history().checkpoints()
    assert columns["value"].tolist()[1:] == [3.0, 5.0]
    assert columns["metrics.loss/train"].tolist()[1:] == pytest.approx(
        [2, math.nan], nan_ok=True
    )
    assert columns["has_params"].tolist() == [False, True, False]


def test_a_column_of_what_is_no_number_has_objects() -> None:
    """So that no value is changed; a missing one is None, or NaN among numbers."""
    found = flat("m", [{"a": 1, "b": "x"}, None, {"a": 2.5, "c": True}, 7])
    assert found["m.a"].dtype == np.float64
    assert found["m.a"].tolist() == pytest.approx(
        [1, math.nan, 2.5, math.nan], nan_ok=True
    )
    assert found["m.b"].tolist() == ["x", None, None, None]
    assert found["m.c"].tolist() == [None, None, True, None]
    assert found["m"].tolist()[3] == 7
    assert flat("m", [{"huge": 10**400}, {"huge": -(10**400)}])["m.huge"].tolist() == [
        math.inf,
        -math.inf,
    ]
    assert flat("m", [{"a": [1, 2]}, {"a": (3, 4)}])["m.a/1"].tolist() == [2, 4]


def test_an_unknown_column_names_the_known_ones() -> None:
    """Also those whose texts were not decoded so far."""
    columns = PopulationController([{"x": 1.0}], Scripted()).history().checkpoints()
    with pytest.raises(KeyError, match=r"'lr'; there are row, .*meta_params\.x"):
        columns["lr"]
    assert "meta_params.x" in columns
    assert "metrics.x" not in columns
    assert {3}.isdisjoint(columns)


def test_columns_become_a_data_frame() -> None:
    """With the same names; one table a call."""
    run = PopulationController([{"x": 1.0}, {"x": 2.0}], Scripted()).history()
    frame = run.checkpoints().to_pandas()
    assert list(frame) == list(run.checkpoints())
    assert frame["meta_params.x"].tolist() == [1.0, 2.0]
    assert len(run.workers().to_pandas()) == len(run.branches().to_pandas()) == 2
    assert run.saves().to_pandas().empty


def test_without_pandas_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what there is without it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    columns = PopulationController([{"x": 1.0}], Scripted()).history().checkpoints()
    with pytest.raises(ImportError, match=r"pip install 'population-jax\[report\]'"):
        columns.to_pandas()


def test_members_have_their_newest_and_best_values() -> None:
    """Of their own reports; NaN before the first."""
    run = PopulationController(
        [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}], Scripted(), mode="max", clock=Clock()
    )
    names = [worker.generation_id for worker in run.workers]
    for step, value in enumerate([5.0, 7.0, math.nan], start=1):
        run.set_eval(0, names[0], step, None, value)
    run.set_eval(1, names[1], 4, None, -1.0)
    run.fail(2, "no memory")
    table = run.history().workers()
    assert table["best"].tolist() == pytest.approx([7.0, -1.0, math.nan], nan_ok=True)
    assert table["value"].tolist()[1] == -1.0
    assert math.isnan(table["value"][0])
    assert table["step"].tolist() == [3, 4, 0]
    assert table["status"].tolist() == ["diverged", "idle", "failed"]
    assert table["reason"].tolist()[2] == "no memory"


def test_damage_is_named(tmp_path: pathlib.Path) -> None:
    """A row that names a missing one is no silent gap in a table."""
    run = PopulationController([{"x": 1.0}], Scripted(), tmp_path / "run")
    run.set_eval(0, run.workers[0].generation_id, 1, None, 5.0)
    run.close()
    for change in (
        "UPDATE checkpoints SET parent = 7 WHERE row = 3",
        "UPDATE checkpoints SET parent = 2, value = 'x' WHERE row = 3",
    ):
        with contextlib.closing(sqlite3.connect(tmp_path / "run/journal.sqlite")) as db:
            db.execute("PRAGMA foreign_keys=OFF")
            db.execute(change)
            db.commit()
        with pytest.raises(JournalError, match="damaged"):
            population.read(tmp_path / "run").checkpoints()


def test_what_was_read_is_not_read_again(tmp_path: pathlib.Path) -> None:
    """Only new checkpoints are; but all, if another run is in its place."""
    run = PopulationController([{"x": 1.0}], Scripted(), tmp_path / "run")
    read = population.read(tmp_path / "run")
    asked: list[int] = []
    real = SqliteJournal.fields

    def fields(journal: Any, kind: Any, names: Any, upto: int, after: int = 0) -> Any:
        if kind is CheckpointRecord:
            asked.append(after)
        return real(journal, kind, names, upto, after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteJournal, "fields", fields)
        for step in range(1, 4):
            slot = run.workers[0]
            run.set_eval(0, slot.generation_id, step, None, None)
            check(read)
            run.set_eval(0, slot.generation_id, step, None, float(step))
            check(read)
    assert asked[:4] == sorted(asked[:4])
    assert asked[-1] == 7  # The row of the last one; its value is in row 8.
    before = read.checkpoints()
    run.close()
    shutil.copytree(tmp_path / "run", tmp_path / "backup")
    run = PopulationController([{}], Scripted(), tmp_path / "run")
    run.set_eval(0, run.workers[0].generation_id, 9, None, 9.0)
    run.close()
    assert read.checkpoints().rows == before.rows + 1
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "backup").rename(tmp_path / "run")
    check(read)  # A backup was put in its place.
    assert read.checkpoints()["value"].tolist()[1:] == [1.0, 2.0, 3.0]
    shutil.rmtree(tmp_path / "run")
    other = PopulationController([{"x": 2.0}] * 5, Scripted(), tmp_path / "run")
    for worker_id, slot in enumerate(other.workers):
        other.set_eval(worker_id, slot.generation_id, 1, None, 5.0)
    check(read)
    other.close()
