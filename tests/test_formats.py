"""A run of each released format can be read for ever, and continued."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import shutil
import sqlite3
import warnings
from typing import Any

import numpy as np
import pytest

from population import PopulationController
from population.base import codec, run_paths
from population.base.types import Checkpoint, InMemory, Saved
from population.core.retention import Keep
from tests import probe
from tests.data import make
from tests.helpers import assert_is_a_forest, work

DATA = pathlib.Path(__file__).parent / "data"
FORMATS = ["format-1", "format-2", "format-3", "format-4", "format-5"]
# Saved arrays are their step and this.
ADDED = {
    "format-1": np.arange(3.0),
    "format-2": np.zeros(2),
    "format-3": np.zeros(2),
    "format-4": np.zeros(2),
    "format-5": np.zeros(2),
}
_PARAMS = 3


def expected(name: str) -> list[list[Any]]:
    """The history that was stored with a run, without weights in memory."""
    found: list[list[Any]] = json.loads((DATA / f"{name}.json").read_text())
    for checkpoint in found:
        if (checkpoint[_PARAMS] or "").startswith(codec.HELD):
            checkpoint[_PARAMS] = None
    return found


def opened(name: str, tmp_path: pathlib.Path, **options: Any) -> PopulationController:
    """A copy of a stored run."""
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(DATA / name, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The run goes on with (other arg|Keep)")
        return make.opened(folder, **options)


def as_stored(controller: PopulationController, checkpoint: Checkpoint) -> list[Any]:
    """A checkpoint in the form of the stored history."""

    def text(value: Any) -> str | None:
        return None if value is None else codec.encode(value)

    value, parent, params = checkpoint.value, checkpoint.parent, None
    if checkpoint.params is not None:
        params = run_paths.encode(checkpoint.params, controller.graph.own)
    return [
        checkpoint.generation_id,
        checkpoint.step,
        checkpoint.worker_id,
        params,
        codec.encode(checkpoint.meta_params),
        int(value is not None),
        None if value is None or math.isnan(value) else value,
        text(checkpoint.metrics),
        *(parent or (None, None)),
        checkpoint.time,
        checkpoint.reason,
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_the_history_of_each_released_format_is_read_for_ever(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Every checkpoint is unchanged, and every save can be loaded."""
    controller = opened(name, tmp_path)
    checkpoints = list(controller.history())
    check_forgetting_nothing(controller, name)
    assert_is_a_forest(controller.graph)
    arrays = [c for c in checkpoints if type(c.params) is Saved]
    assert arrays
    for checkpoint in arrays:
        found = controller.load(checkpoint)["w"]
        np.testing.assert_array_equal(found, checkpoint.step + ADDED[name])


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_of_each_released_format_goes_on(
    name: str, tmp_path: pathlib.Path
) -> None:
    """New reports, decisions and saves follow, and the old ones stay."""
    controller = opened(name, tmp_path, keep=Keep(everything=True))
    decided = probe.decisions(controller)
    count = sum(1 for _ in controller.history())
    make.tick(controller, 40)
    assert sum(1 for _ in controller.history()) >= count + 40
    assert probe.decisions(controller) > decided
    check_forgetting_nothing(controller, name)
    controller.close()
    again = opened(name, tmp_path)
    check_forgetting_nothing(again, name)
    assert len({work(again, slot).generation_id for slot in range(make.SIZE)}) == 3
    make.tick(again, 20)
    for slot in range(make.SIZE):
        work(again, slot)  # Params that are removed now count, too.


def check_forgetting_nothing(controller: PopulationController, name: str) -> None:
    """The stored history comes first, and new checkpoints follow."""
    history = [as_stored(controller, checkpoint) for checkpoint in controller.history()]
    before = expected(name)
    assert history[: len(before)] == before
    assert_is_a_forest(controller.graph)


def test_the_stored_run_of_this_format_holds_all_that_the_format_can_tell() -> None:
    """An empty table would prove nothing."""
    path = DATA / "format-3" / "journal.sqlite"
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    for question in (
        "SELECT count(*) FROM removals WHERE reason = 'unreachable'",
        "SELECT count(*) FROM removals WHERE reason = 'rejected: a bad sector'",
        "SELECT count(*) FROM losses WHERE lost = '[2]'",
        "SELECT count(*) FROM leases WHERE owner LIKE '%a-host%'",
        "SELECT count(*) FROM removals WHERE params LIKE '{\"!held\"%' "
        "AND reason = 'unreachable'",
        "SELECT count(*) FROM removals WHERE params LIKE '{\"!held\"%' "
        "AND reason = 'held in a memory that is gone'",
        "SELECT count(*) FROM saves WHERE params LIKE '{\"!held\"%'",
        "SELECT count(*) FROM saves WHERE params LIKE '{\"!saved\"%'",
        "SELECT count(*) FROM late l JOIN checkpoints c ON c.row = l.checkpoint "
        "WHERE c.params LIKE '{\"!held\"%' AND l.params LIKE '\"late at%'",
        "SELECT count(*) FROM history WHERE params LIKE '{\"!held\"%'",
        "SELECT count(*) FROM late",
        "SELECT count(*) FROM checkpoints WHERE has_value AND value IS NULL",
        "SELECT count(*) FROM generations WHERE reason = 'takeover'",
        "SELECT count(*) FROM generations WHERE reason LIKE 'rejected%'",
    ):
        assert connection.execute(question).fetchone()[0] > 0, question
    connection.close()


def test_the_lost_slots_of_a_stored_run_are_still_lost(tmp_path: pathlib.Path) -> None:
    """They are lost until they are trained further."""
    controller = opened("format-3", tmp_path)
    assert probe.lost(controller) == {2}
    controller.set_eval(2, controller.workers[2].generation_id, 99, "path", 1.0)
    assert not probe.lost(controller)


def test_what_a_host_held_that_was_long_silent_is_free(tmp_path: pathlib.Path) -> None:
    """A run may be moved; a worker here gets the slot of one there, which is fenced."""
    controller = opened("format-3", tmp_path)
    before = probe.newest(controller)[0]
    assert before.reason == "takeover"
    workers = [controller.worker() for _ in range(make.SIZE)]
    assert {worker.worker_id for worker in workers} == {0, 1, 2}
    make.tick(controller)
    controller.close()
    opened("format-3", tmp_path)  # A report here shows no life there.


def test_what_a_stored_run_held_in_memory_is_none(tmp_path: pathlib.Path) -> None:
    """Its host is dead: the slot continues from what was saved; no note stays."""
    controller = opened("format-3", tmp_path)
    assert all(type(c.params) is not InMemory for c in controller.history())
    assert not any(s.params.startswith(codec.HELD) for s in probe.saves(controller))
    assert type(work(controller, 0).params) is not InMemory


@pytest.mark.parametrize("name", FORMATS[:-1])
def test_a_file_of_an_older_format_lets_late_params_replace_held_ones(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Opening it replaces the view: a path counts that comes after `InMemory`."""
    controller = opened(name, tmp_path)
    at = controller.workers[2]
    report = 2, at.generation_id, at.step + 1
    controller.set_eval(*report, InMemory(), 1e6)
    assert type(controller.newest(2).params) is InMemory
    controller.set_eval(*report, "a path", None)
    found = controller.graph[at.generation_id][at.step + 1]
    assert found.params == "a path"
    controller.close()
    with sqlite3.connect(tmp_path / name / "journal.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)
    connection.close()


def rows(file: pathlib.Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a journal, by table."""
    uri = f"file:{file}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
            for (name,) in tables.fetchall()
        }


def test_a_file_of_the_format_before_keeps_every_row(tmp_path: pathlib.Path) -> None:
    """Only a column of the losses and the table of statuses are new, and empty."""
    before = rows(DATA / "format-4" / "journal.sqlite")
    opened("format-4", tmp_path).close()
    now = rows(tmp_path / "format-4" / "journal.sqlite")
    assert now.pop("statuses") == []
    assert now["sessions"][: len(before["sessions"])] == before.pop("sessions")
    assert now.pop("losses") == [(*loss, None, None) for loss in before.pop("losses")]
    for table in ("generations", "checkpoints", "late", "best"):
        assert now[table][: len(before[table])] == before[table]
    assert set(before["facts"]) <= set(now["facts"])
    assert now["state"] == before["state"]


@pytest.mark.parametrize("name", FORMATS[:-1])
def test_a_run_of_an_older_format_records_what_is_new(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Failures, retirements and late metrics are there when it is opened again."""
    controller = opened(name, tmp_path)
    controller.fail(1, "it broke")
    assert probe.statuses(controller)[1].failures == 1
    for _ in range(2):
        controller.fail(1, "it broke again")
    at = controller.workers[0]
    report = 0, at.generation_id, at.step + 1, None
    controller.set_eval(*report, 3.0)
    controller.set_eval(*report, 3.0, {"loss": 1})
    assert controller.newest(0).metrics == {"loss": 1}
    controller.close()
    again = opened(name, tmp_path)
    assert probe.retired(again) == {1}
    assert again.newest(0).metrics == {"loss": 1}
    check_forgetting_nothing(again, name)


def test_the_stored_run_with_failures_holds_each_kind_of_status() -> None:
    """An empty table would prove nothing."""
    path = DATA / "format-5" / "journal.sqlite"
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    for question in (
        "SELECT count(*) FROM statuses WHERE kind = 'failed' AND NOT retired",
        "SELECT count(*) FROM statuses WHERE kind = 'failed' AND retired",
        "SELECT count(*) FROM statuses WHERE kind = 'diverged'",
        "SELECT count(*) FROM statuses WHERE kind = 'recovered'",
        "SELECT count(*) FROM statuses WHERE kind = 'retired'",
        "SELECT count(*) FROM statuses WHERE kind = 'revived'",
        "SELECT count(*) FROM generations WHERE reason LIKE 'failed: %'",
        "SELECT count(*) FROM losses WHERE statuses > 0 AND told NOT NULL",
        "SELECT count(*) FROM late WHERE metrics NOT NULL AND NOT has_value",
    ):
        assert connection.execute(question).fetchone()[0] > 0, question
    connection.close()


def test_the_retired_slots_of_a_stored_run_are_still_retired(
    tmp_path: pathlib.Path,
) -> None:
    """They are until they are revived."""
    controller = opened("format-5", tmp_path)
    assert probe.retired(controller) == {1}
    assert probe.lost(controller) == {2}
    assert controller.newest(2).metrics is not None
    controller.revive(1)
    assert probe.retired(controller) == set()
