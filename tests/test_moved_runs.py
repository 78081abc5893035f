"""A run is in its folder: moved, copied, forked, or opened from elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import population
from population import PopulationController, Stop
from population.journal.sqlite import SqliteJournal
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.params import FileParams, OrbaxParams
from tests.helpers import generation, work

BUCKET = "gs://bucket/run"
SINCE_5 = """DROP TABLE statuses; DROP INDEX late_by_metrics;
ALTER TABLE losses DROP COLUMN batch; ALTER TABLE losses DROP COLUMN statuses;
"""  # What format 3 lacks.


def shrink(meta_params: float) -> float:
    """Make the number a little smaller."""
    return 0.9 * meta_params


def opened(log_dir: Any, steps: int) -> PopulationController:
    """Two workers that wait for each other."""
    mutator = PopulationBasedTraining(shrink, 20, synchronous=True)
    return PopulationController([1.0, 2.0], mutator, log_dir, stop=Stop(steps=steps))


def as_text(path: str) -> Any:
    """The path as `save_to` gives it."""
    return path


def as_path(path: str) -> Any:
    """The path as a path."""
    return pathlib.Path(path)


def within(path: str) -> Any:
    """The path within a tuple."""
    return {"weights": [path, pathlib.Path(path)], "epoch": 3}


def train_by_paths(log_dir: Any, steps: int, kept: Callable[[str], Any]) -> None:
    """Workers that save themselves: the weights are the number of their steps."""
    controller = opened(log_dir, steps)
    with controller.worker() as worker:
        count = 0
        while worker.running:
            if worker.poll():
                count = worker.step
                if worker.params is not None:
                    found = worker.params
                    path = found["weights"][0] if isinstance(found, dict) else found
                    assert kept(str(path)) == found
                    count = json.loads(pathlib.Path(path).read_text())
                assert count == worker.step
            count += 1
            worker.step += 1
            if worker.step % 10 == 0:
                assert worker.save_to is not None
                pathlib.Path(worker.save_to).write_text(json.dumps(count))
                # The loop reports the saved path in its own form.
                params = kept(worker.save_to)
                controller.set_eval(
                    worker.worker_id,
                    worker.generation_id,
                    worker.step,
                    params,
                    worker.meta_params,
                )
    controller.close()


def train_by_arrays(log_dir: Any, steps: int) -> None:
    """Workers whose weights the library saves."""
    controller = opened(log_dir, steps)
    with controller.worker() as worker:
        count = 0
        while worker.running:
            if worker.poll():
                count = int(worker.restore(lambda _: {"n": np.zeros((), int)})["n"])
                assert count == worker.step
            count += 1
            worker.step += 1
            if worker.step % 10 == 0:
                worker.report(worker.meta_params, {"n": np.array(count)})
    controller.close()


Train = Callable[[Any, int], None]


def by(kept: Callable[[str], Any]) -> Train:
    """Train with paths of this form."""
    return lambda log_dir, steps: train_by_paths(log_dir, steps, kept)


WAYS: dict[str, Train] = {
    "arrays": train_by_arrays,
    "paths": by(as_text),
    "pathlib": by(as_path),
    "nested": by(within),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_may_be_named_from_another_folder_and_be_moved(
    way: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it continues from its weights."""
    train = WAYS[way]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    train("run", 40)
    monkeypatch.chdir(tmp_path / "other")
    train(tmp_path / "run", 60)
    train(os.path.join("..", "run"), 80)
    shutil.move(tmp_path / "run", "moved")
    train("moved", 100)
    shutil.copytree("moved", "copy")
    shutil.rmtree("moved")
    train("copy", 120)


@pytest.mark.parametrize("way", ["arrays", "paths", "nested"])
def test_a_fork_has_its_own_weights(way: str, tmp_path: pathlib.Path) -> None:
    """The first run may be removed, or written to."""
    train = WAYS[way]
    train(tmp_path / "run", 40)
    mutator = PopulationBasedTraining(shrink, 20, synchronous=True)
    population.fork(tmp_path / "run", tmp_path / "new", mutator=mutator).close()
    for file in (tmp_path / "run" / "own").rglob("*"):
        if file.is_file():
            file.write_text("-1")
    train(tmp_path / "new", 60)
    shutil.rmtree(tmp_path / "run")
    train(tmp_path / "new", 80)


def test_suffixes_that_a_saver_adds_are_forked_too(tmp_path: pathlib.Path) -> None:
    """`numpy.savez(worker.save_to)` adds a suffix to the name."""
    controller = opened(tmp_path / "run", 40)
    with controller.worker() as worker:
        worker.poll()
        worker.step = 10
        assert worker.save_to is not None
        np.savez(worker.save_to, w=np.ones(2))
        pathlib.Path(f"{worker.save_to}0").write_text("of step 100")
        worker.report(1.0, worker.save_to)
    controller.close()
    mutator = FixedSchedule({0: 1.0})
    new = population.fork(tmp_path / "run", tmp_path / "new", mutator=mutator)
    params = new.newest(0).params
    assert params.startswith(str(tmp_path / "new"))
    assert np.load(f"{params}.npz")["w"].tolist() == [1.0, 1.0]
    assert not pathlib.Path(f"{params}0").exists()
    new.close()


@pytest.mark.parametrize("odd", ["{own}/../../else", "{own}//twice", "{own}/", "{own}"])
def test_odd_paths_within_the_run_folder_come_back_as_they_were(
    odd: str, tmp_path: pathlib.Path
) -> None:
    """Some of them lead out of it and back."""
    mutator = FixedSchedule({0: 1.0})
    path = odd.format(own=tmp_path / "own")
    controller = PopulationController([1.0], mutator, tmp_path)
    controller.set_eval(0, generation(controller), 1, path, 1.0)
    controller.close()
    again = PopulationController([1.0], mutator, tmp_path)
    assert again.newest(0).params == path
    again.close()


@pytest.mark.parametrize("way", ["arrays", "paths"])
def test_the_process_may_go_to_another_folder_while_it_trains(
    way: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path refers to the folder at the time when it was passed."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    store = FileParams("store")
    controller = PopulationController(
        [1.0], FixedSchedule({0: 1.0}), "run", params=store
    )
    name = generation(controller)
    monkeypatch.chdir(tmp_path / "other")
    params: Any = {"w": np.ones(2)} if way == "arrays" else "anywhere"
    controller.set_eval(0, name, 1, params, 1.0)
    controller.set_eval(0, name, 2, params, 1.0)
    assert work(controller).step == 2
    controller.close()
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("where", ["checkpoints", "late"])
@pytest.mark.parametrize("folder", ["runs/first", "/data/runs/first", "."])
def test_paths_of_older_formats_are_found_where_the_run_is_now(
    where: str, folder: str, tmp_path: pathlib.Path
) -> None:
    """They name the folder in which the run was, or a folder of its process."""
    controller = PopulationController([1.0], FixedSchedule({0: 1.0}), tmp_path / "run")
    name = generation(controller)
    tail = os.path.join("own", name, "1")
    is_late = where == "late"
    controller.set_eval(0, name, 1, None if is_late else "x", 1.0)
    if is_late:
        controller.set_eval(0, name, 1, "x", None)
    controller.close()
    own = json.dumps(tail if folder == "." else f"{folder}/{tail}")
    nested = f'{{"a":{{"!tuple":[{own},{{"!path":{own}}}]}},"b":"/data/own/{name}"}}'
    with contextlib.closing(sqlite3.connect(tmp_path / "run/journal.sqlite")) as older:
        older.execute(f"UPDATE {where} SET params = ? WHERE params = '\"x\"'", (own,))
        older.execute("INSERT INTO removals VALUES (?, 0, 'unreachable')", (nested,))
        older.executescript(SINCE_5)
        older.execute("PRAGMA user_version=3")
        older.commit()
    controller = PopulationController([1.0], FixedSchedule({0: 1.0}), tmp_path / "run")
    assert controller.newest(0).params == str(tmp_path / "run" / tail)
    controller.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "run/journal.sqlite")) as now:
        ((text,),) = now.execute("SELECT params FROM removals").fetchall()
    kept = [{"!own": [f"{name}/1", "text"]}, {"!own": [f"{name}/1", "path"]}]
    assert json.loads(text) == {"a": {"!tuple": kept}, "b": f"/data/own/{name}"}


@pytest.mark.parametrize("odd", ["own/{id}/1/../best", "own//{id}/1", "own/{id}/../1"])
def test_an_odd_path_of_an_older_format_stays_as_it_was(
    odd: str, tmp_path: pathlib.Path
) -> None:
    """A path that leads out of the folder is not made relative to it."""
    controller = PopulationController([1.0], FixedSchedule({0: 1.0}), tmp_path)
    name = generation(controller)
    controller.set_eval(0, name, 1, "x", 1.0)
    controller.close()
    path = f"/data/{odd.format(id=name)}"
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as older:
        sql = "UPDATE checkpoints SET params = ? WHERE params = '\"x\"'"
        older.execute(sql, (json.dumps(path),))
        older.executescript(SINCE_5)
        older.execute("PRAGMA user_version=3")
        older.commit()
    controller = PopulationController([1.0], FixedSchedule({0: 1.0}), tmp_path)
    assert controller.newest(0).params == path
    controller.close()


def test_a_folder_behind_a_link_is_where_the_link_leads(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`link/..` is the parent of the link's target, as for every program."""
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").symlink_to(tmp_path / "disk" / "data")
    monkeypatch.chdir(tmp_path / "here")
    opened("data/../runs", 10).close()
    assert (tmp_path / "disk" / "runs" / "journal.sqlite").exists()
    assert not (tmp_path / "here" / "runs").exists()


def test_a_bucket_as_a_run_folder_is_refused_in_words(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder `gs:` is made; the error says what to do."""
    monkeypatch.chdir(tmp_path)
    mutator = FixedSchedule({0: 1.0})
    opened(tmp_path / "run", 10).close()
    for log_dir in (BUCKET, pathlib.Path(BUCKET), "s3://bucket", "file:///data"):
        calls: list[Callable[[], object]] = [
            lambda d=log_dir: opened(d, 10),  # type: ignore[misc]
            lambda d=log_dir: population.replay(d, mutator),  # type: ignore[misc]
            lambda d=log_dir: population.fork(  # type: ignore[misc]
                tmp_path / "run", d, mutator=mutator
            ),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"params=OrbaxParams\("):
                call()
    with pytest.raises(ValueError, match=r"OrbaxParams\('gs://bucket/run'\)"):
        FileParams(BUCKET)
    with pytest.raises(ValueError, match="must be a local folder"):
        SqliteJournal(f"{BUCKET}/journal.sqlite")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    OrbaxParams(BUCKET)


@pytest.mark.parametrize("log_dir", [3, b"run", ["run"]])
def test_a_run_folder_is_a_path(log_dir: Any) -> None:
    """The error names any other argument."""
    with pytest.raises(TypeError, match="log_dir must be the path of a folder"):
        opened(log_dir, 10)
