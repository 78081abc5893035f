"""Plays a golden script: random calls, all of them decided by a seed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from tests.golden import handles, loops
from tests.golden.stage import Stage
from tests.golden.tables import Tables

Play = Callable[[Stage], None]

_LOOPS: list[tuple[Play, int]] = [
    (loops.report_further, 40),
    (loops.report_anything, 12),
    (loops.report_late, 10),
    (loops.report_again, 3),
    (loops.report_batch, 10),
    (loops.poll, 12),
    (loops.ask, 5),
    (loops.restart, 3),
]
_WORKERS: list[tuple[Play, int]] = [
    (handles.claim, 12),
    (handles.step, 50),
    (handles.poll, 6),
    (handles.reject, 4),
    (handles.busy, 2),
    (handles.release, 5),
    (loops.ask, 4),
    (loops.restart, 3),
]
_BESIDE_WORKERS: list[tuple[Play, int]] = [
    (loops.report_late, 6),
    (loops.report_anything, 4),
    (loops.poll, 3),
]
_CLAIMED: list[tuple[Play, int]] = [
    (loops.claim_all, 4),
    (loops.report_batch, 45),
    (loops.report_further, 5),
    (loops.report_late, 8),
    (loops.report_anything, 5),
    (loops.poll, 6),
    (loops.ask, 4),
    (loops.restart, 3),
]


def play(seed: int, folder: pathlib.Path) -> Tables:
    """Play the script of a seed in an empty folder.

    Returns:
        The rows of each table of its journal, those of a fork under "fork ...", and
        under "calls" each call, its arguments, its result or exception, and in
        some scripts a digest of the journal after it.
    """
    return played(seed, folder).tables()


def played(seed: int, folder: pathlib.Path) -> Stage:
    """Play the script of a seed; returns the stage, with all that it has recorded."""
    stage = Stage(seed, folder)
    rng = stage.rng
    try:
        stage.places.append(stage.opened())
        if rng.random() < 0.5:
            stage.places.append(stage.opened())
        stage.look()
        acts, length = _acts(stage), rng.randint(18, 46)
        if stage.kind == "claimed":
            loops.claim_all(stage)
        for number in range(length):
            if stage.kind == "forked" and number == length // 2:
                loops.fork(stage)
            else:
                _act(stage, acts)
            stage.look()
    finally:
        stage.leave()
    return stage


def _act(stage: Stage, acts: list[tuple[Play, int]]) -> None:
    plays, weights = zip(*acts, strict=True)
    stage.rng.choices(plays, weights)[0](stage)


def _acts(stage: Stage) -> list[tuple[Play, int]]:
    """The calls that a script of this kind may make."""
    if stage.kind == "claimed":
        return _CLAIMED
    if stage.kind != "workers":
        return _LOOPS
    # A worker never gets a slot that a loop polls, if there is a timeout.
    is_free = stage.options["worker_timeout"] is None
    return _WORKERS + _BESIDE_WORKERS if is_free else _WORKERS
