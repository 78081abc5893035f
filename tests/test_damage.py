"""Journals are damaged at random: the library notices, or is right, and never hangs.

A failure names its seed: `check_damages(runs, folder, [seed])` makes it again.
"""

from __future__ import annotations

import collections
import pathlib
import random
import shutil
import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import population
from population import ParamsError, PopulationController, PopulationError
from population.params import FileParams
from tests import damaging, probe
from tests.helpers import Scripted, branch_at, generation, work


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, damaging.Run]:
    """A small run of each kind."""
    return damaging.made(tmp_path_factory.mktemp("runs"))


def check_damages(
    runs: dict[str, damaging.Run], folder: pathlib.Path, seeds: Iterable[int]
) -> dict[str, int]:
    """Damage a run by each seed; count the reactions."""
    outcomes: collections.Counter[str] = collections.Counter()
    failures = []
    for seed in seeds:
        choose = random.Random(seed)
        kind = choose.choice(sorted(runs))
        run, copy = runs[kind], folder / str(seed)
        shutil.copytree(run.folder / choose.choice(["closed", "closed", "open"]), copy)
        what = damaging.damage(copy, choose)
        try:
            outcomes[damaging.outcome(run, copy)] += 1
        except (Exception, damaging.Late) as error:
            failures.append(f"seed {seed}, {kind}, {what}: {error!r}"[:600])
        for left in folder.glob(f"{seed}*"):
            shutil.rmtree(left)
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)
    return outcomes


def test_a_damaged_journal_is_refused_or_not_read(
    runs: dict[str, damaging.Run], tmp_path: pathlib.Path
) -> None:
    """200 damages cause no other error, no hang, no change, and leave no lock."""
    outcomes = check_damages(runs, tmp_path, range(200))
    assert outcomes["refused"] > 60
    assert outcomes["right"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 11))
def test_journals_that_are_damaged_very_often_are_refused_or_not_read(
    part: int, runs: dict[str, damaging.Run], tmp_path: pathlib.Path
) -> None:
    """More damages, for longer."""
    check_damages(runs, tmp_path, range(part * 1000, part * 1000 + 200))


DEEP = "[" * 100_000 + "]" * 100_000
NEWEST = "WHERE row = (SELECT max(row) FROM checkpoints)"


@pytest.mark.parametrize(
    "sql",
    [
        f"UPDATE checkpoints SET step = 1.5 {NEWEST}",
        f"UPDATE checkpoints SET params = '{DEEP}' {NEWEST}",
        f'UPDATE checkpoints SET params = \'{{"!held":["x"]}}\' {NEWEST}',
        f"UPDATE checkpoints SET params = '{{\"!saved\":5}}' {NEWEST}",
        f"UPDATE checkpoints SET value = 'high' {NEWEST}",
        f"UPDATE checkpoints SET parent = 10000 {NEWEST}",
        f"UPDATE checkpoints SET time = 9e999 {NEWEST}",
        "UPDATE checkpoints SET parent = row WHERE row < 20",
        "UPDATE generations SET reason = CAST(x'ff41' AS TEXT)",
        "UPDATE generations SET generation_id = '../' || generation_id",
        "UPDATE generations SET generation_id = '/tmp/' || row",
        "UPDATE generations SET meta_params = '\"one\"'",
        "UPDATE generations SET meta_params = '2.5'",
        "UPDATE facts SET value = '1000000000000' WHERE key = 'size'",
        "UPDATE facts SET value = '2' WHERE key = 'size'",
        "UPDATE facts SET value = '-3' WHERE key = 'size'",
        "UPDATE facts SET value = '[3]' WHERE key = 'run'",
        "UPDATE facts SET value = '{\"other\":1}' WHERE key = 'keep'",
        f"UPDATE facts SET value = '{DEEP}' WHERE key = 'settings'",
        "UPDATE facts SET value = x'00' WHERE key = 'mode'",
        "UPDATE facts SET value = '1.5' WHERE key = 'claimed'",
        "UPDATE sessions SET time = 'noon'",
        "UPDATE leases SET owner = '{'",
        "UPDATE leases SET owner = '[1,2,3,4,5]'",
        "UPDATE leases SET worker_id = 70 WHERE worker_id = 2",
        "UPDATE leases SET change = 'x' WHERE worker_id = 2",
        "UPDATE state SET state = '[1]'",
        "UPDATE state SET decisions = -1",
        "UPDATE best SET checkpoint = 10000",
        "INSERT INTO losses VALUES (1, '[0]', NULL, 1.0, 'x', 1)",
        "INSERT INTO losses VALUES (1, '[0]', NULL, 1.0, -1, 1)",
        "INSERT INTO losses VALUES (1, '[0]', NULL, 1.0, 0, 1.5)",
        "DELETE FROM checkpoints WHERE row = "
        "(SELECT row FROM checkpoints ORDER BY row DESC LIMIT 1 OFFSET 3)",
    ],
    ids=lambda sql: sql[:60],
)
def test_a_damage_that_opening_reads_is_refused(
    sql: str, runs: dict[str, damaging.Run], tmp_path: pathlib.Path
) -> None:
    """The file stays equal byte for byte, and its lock is free."""
    run, folder = runs["workers"], tmp_path / "run"
    shutil.copytree(run.folder / "closed", folder)
    other = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    assert other.execute(sql).rowcount > 0
    other.close()
    before = (folder / "journal.sqlite").read_bytes()
    with pytest.raises(PopulationError, match=r"damaged|holds a run with workers"):
        damaging.opened(folder, run.mutator)
    assert (folder / "journal.sqlite").read_bytes() == before
    other = sqlite3.connect(folder / "journal.sqlite", timeout=0.0)
    other.execute("BEGIN IMMEDIATE")
    other.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE statuses SET kind = 'broken' WHERE number = 1",
        "UPDATE statuses SET kind = x'41' WHERE number = 1",
        "UPDATE statuses SET kind = 'recovered' WHERE kind = 'failed'",
        "UPDATE statuses SET kind = 'failed' WHERE kind = 'revived'",
        "UPDATE statuses SET worker_id = 3 WHERE number = 1",
        "UPDATE statuses SET worker_id = -1 WHERE number = 1",
        "UPDATE statuses SET failures = 0 WHERE kind = 'failed'",
        "UPDATE statuses SET failures = -1 WHERE number = 1",
        "UPDATE statuses SET failures = 1.5 WHERE number = 1",
        "UPDATE statuses SET failures = 9223372036854775807 WHERE number = 1",
        "UPDATE statuses SET retired = 2 WHERE number = 1",
        "UPDATE statuses SET retired = 1 WHERE kind = 'revived'",
        "UPDATE statuses SET reason = CAST(x'ff41' AS TEXT) WHERE number = 1",
        "UPDATE statuses SET reason = 7.5 || x'00ff' WHERE number = 1",
        "UPDATE statuses SET step = -1 WHERE number = 1",
        "UPDATE statuses SET time = 'noon' WHERE number = 1",
        "UPDATE statuses SET time = 9e999 WHERE number = 1",
        "UPDATE statuses SET batch = row + 2 WHERE number = 1",
        "UPDATE statuses SET batch = 0 WHERE number = 1",
        "UPDATE statuses SET row = 100000, batch = 1 WHERE number = 1",
        "UPDATE statuses SET number = 0 WHERE number = 1",
        "DELETE FROM statuses WHERE number = 2",
    ],
    ids=lambda sql: sql[:60],
)
def test_a_damaged_status_is_refused(
    sql: str, runs: dict[str, damaging.Run], tmp_path: pathlib.Path
) -> None:
    """Wrong kinds, unknown workers, impossible counts: opening and fork refuse it."""
    run, folder = runs["failing"], tmp_path / "run"
    shutil.copytree(run.folder / "closed", folder)
    other = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    assert other.execute(sql).rowcount > 0
    other.close()
    before = (folder / "journal.sqlite").read_bytes()
    with pytest.raises(PopulationError, match="damaged"):
        damaging.opened(folder, run.mutator)
    with pytest.raises(PopulationError, match="damaged"):
        population.fork(folder, tmp_path / "new", mutator=run.mutator())
    assert (folder / "journal.sqlite").read_bytes() == before
    assert not (tmp_path / "new" / "journal.sqlite").exists()


def test_a_report_that_is_recorded_returns_though_its_donor_cannot_be_read(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next poll of the branched slot raises, and says what is wrong."""

    class Unmounted(FileParams):
        def load(self, path: str, like: Any = None) -> Any:
            raise ParamsError(f"The params {path} cannot be read: no disk.")

    mutator = Scripted(branch_at(1, 5.0))
    store = Unmounted(tmp_path / "params")
    controller = PopulationController([1.0], mutator, tmp_path, params=store)
    report = (0, generation(controller), 1, {"w": np.ones(2)}, 1.0)
    assert controller.set_evals([report]) == {}
    assert "worker 0 has other work: The params" in caplog.text
    assert probe.newest(controller)[0].meta_params == 5.0
    with pytest.raises(ParamsError, match="no disk"):
        work(controller)
    controller.close()
