"""Threads and processes read no weights for a slot that keeps its own."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from population.engines import processes, threads
from tests.engines import own_weights

ENGINES: dict[str, Any] = {"threads": threads, "processes": processes}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", own_weights.POLICIES)
def test_new_hyperparameters_alone_read_nothing(
    engine: str, policy: str, tmp_path: pathlib.Path
) -> None:
    """Each slot gets others after each report, and trains with them to the end."""
    run, store = own_weights.opened(tmp_path, policy, 2)
    ENGINES[engine].run(own_weights.train, run, progress=False)
    assert [worker.step for worker in run.workers] == [12, 12]
    assert len(list(run.graph)) >= 2 * 6
    assert store.loaded == []
    run.close()
