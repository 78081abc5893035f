"""Journals are damaged at random: the library notices, or is right, and never hangs.

A failure names its seed: `check_damages(runs, folder, [seed])` makes it again.
"""

from __future__ import annotations

import collections
import pathlib
import random
import shutil
from collections.abc import Iterable

import pytest

from tests import damaging


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, damaging.Run]:
    """A small run of each kind."""
    return damaging.made(tmp_path_factory.mktemp("runs"))


def check_damages(
    runs: dict[str, damaging.Run], folder: pathlib.Path, seeds: Iterable[int]
) -> dict[str, int]:
    """Damage a run by each seed; count how that was taken."""
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
    """200 damages; no raw error, no hang, no change, no lock that is left."""
    outcomes = check_damages(runs, tmp_path, range(200))
    assert outcomes["refused"] > 60
    assert outcomes["right"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 11))
def test_journals_that_are_damaged_very_often_are_refused_or_not_read(
    part: int, runs: dict[str, damaging.Run], tmp_path: pathlib.Path
) -> None:
    """The same, for longer."""
    check_damages(runs, tmp_path, range(part * 1000, part * 1000 + 200))
