"""Each engine goes on from the save before, if one is lost."""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import Keep, ParamsError, PopulationController
from population.base.types import Saved
from tests import probe
from tests.engines import regression
from tests.helpers import Scripted

SIZE = 4
Engine = Callable[[PopulationController], object]
ENGINES: dict[str, Engine] = {
    "threads": regression.by_threads,
    "stacked": functools.partial(regression.stacked, save_every=1),
}


def opened(log_dir: pathlib.Path, steps: int, mutator: Any = None) -> Any:
    """A run whose saves all stay."""
    mutator, keep = mutator or Scripted(), Keep(everything=True)
    return regression.controller(mutator, SIZE, log_dir, steps, keep=keep)


def lose(controller: PopulationController, worker_ids: list[int]) -> None:
    """Remove the files of the newest saves of some slots."""
    for worker_id in worker_ids:
        params = controller.newest(worker_id).params
        assert isinstance(params, Saved)
        assert controller.log_dir is not None
        (controller.log_dir / "params" / params.path).unlink()


def last(controller: PopulationController) -> list[float]:
    """The value of each slot's newest report."""
    newest = [controller.newest(worker_id) for worker_id in range(SIZE)]
    assert [checkpoint.step for checkpoint in newest] == [20] * SIZE
    return [float(checkpoint.value or 0.0) for checkpoint in newest]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lost", [[1], [0, 2, 3], [0, 1, 2, 3]])
def test_slots_whose_saves_are_lost_train_the_steps_since_once_more(
    engine: str,
    lost: list[int],
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the same result; each causes one rejection, and one warning."""
    with_all = opened(tmp_path / "whole", 20)
    ENGINES[engine](with_all)
    first = opened(tmp_path / "run", 10)
    ENGINES[engine](first)
    lose(first, lost)
    first.close()
    again = opened(tmp_path / "run", 20)
    ENGINES[engine](again)
    np.testing.assert_allclose(last(again), last(with_all), rtol=1e-5)
    assert caplog.text.count("goes on from an earlier save") == len(lost)
    reasons = probe.removal_reasons(again)
    assert len([r for r in reasons if r.startswith("rejected: lost")]) == len(lost)
    for worker_id in range(SIZE):
        own = [c for c in again.history() if c.worker_id == worker_id]
        trained = [c.step for c in own if c.value is not None]
        assert trained.count(10) == (2 if worker_id in lost else 1)
    with_all.close()
    again.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_raises_if_the_store_may_be_another_one(
    engine: str, tmp_path: pathlib.Path
) -> None:
    """As when the disk is not mounted: nothing is recorded, and it can go on later."""
    run = opened(tmp_path / "run", 10)
    ENGINES[engine](run)
    run.close()
    shutil.move(tmp_path / "run" / "params", tmp_path / "away")
    run = opened(tmp_path / "run", 20)
    with pytest.raises(ParamsError, match="missing"):
        ENGINES[engine](run)
    assert not [r for r in probe.removal_reasons(run) if r.startswith("rejected")]
    assert max(c.step for c in run.history()) == 10
    run.close()
    shutil.move(tmp_path / "away", tmp_path / "run" / "params")
    run = opened(tmp_path / "run", 20)
    ENGINES[engine](run)
    last(run)
    assert not [r for r in probe.removal_reasons(run) if r.startswith("rejected")]
    run.close()
