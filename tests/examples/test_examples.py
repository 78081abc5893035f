"""The examples: each improves, each can be run again, each says what is wrong."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from examples.simple_cnn import (
    model,
    train,
    train_processes,
    train_threads,
    train_vectorized,
)
from examples.simple_cnn.patches import PatchConv
from examples.synthetic import train as synthetic
from examples.synthetic import train_vectorized as stacked_toy

TINY = ["--width", "4", "--batch_size", "16"]


@pytest.mark.parametrize("mutator", ["explore", "winner", "fixed"])
def test_synthetic_finds_the_optimum(mutator: str) -> None:
    """5,000 inner steps come within 0.0005 of the best objective, 1.5."""
    controller = synthetic.train(mutator)
    best = controller.best()
    assert best is not None
    assert best.value is not None
    assert 1.5 - 1e-9 <= best.value <= (1.5005 if mutator == "explore" else 1.51)


def test_synthetic_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    """Two halves of a run equal the whole run."""
    log_dir = str(tmp_path)
    synthetic.train("winner", log_dir, steps=1000)
    halves = synthetic.train("winner", log_dir, steps=2000)
    whole = synthetic.train("winner", steps=2000)
    assert [c.value for c in halves.history()] == [c.value for c in whole.history()]


def test_synthetic_prints_what_it_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """The program ends with the objective."""
    synthetic.main(["--mutator", "fixed", "--steps", "500"])
    assert "best objective 1." in capsys.readouterr().out


def test_one_worker_improves_and_goes_on(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CNN improves on validation; more steps continue from the saved weights."""
    flags = [*TINY, "--log_dir", str(tmp_path), "--explore_steps", "5"]
    flags += ["--exploit_steps", "10"]
    first = train.main([*flags, "--steps", "20"])
    before = first.best()
    first.close()
    assert "1 worker  20/20 steps" in capsys.readouterr().out
    second = train.main([*flags, "--steps", "60", "--quiet"])
    after = second.best()
    assert before is not None
    assert after is not None
    assert (after.value or 9) < (before.value or 0)
    assert second.workers[0].step >= 60
    shown = capsys.readouterr().out
    assert "test accuracy" in shown
    assert "60 steps" not in shown
    assert (tmp_path / "plots" / "learning_rate.png").exists()


def test_threads_improve_and_say_what_the_controller_took(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three slots on two threads reach the end; table and pictures are shown."""
    flags = [*TINY, "--workers", "3", "--threads", "2", "--steps_per_exploit", "10"]
    run = train_threads.main(
        [*flags, "--steps", "45", "--every", "5", "--log_dir", str(tmp_path)]
    )
    values = [c.value for c in run.history() if c.value is not None]
    best = run.best()
    assert best is not None
    assert best.value is not None
    assert best.value < values[0]
    assert [worker.step for worker in run.workers] == [45] * 3
    shown = capsys.readouterr().out
    assert "the controller took" in shown
    assert "cpu" in shown.lower()
    assert "3 workers  45/45 steps" in shown
    assert (tmp_path / "plots" / "learning_curves.png").exists()


def test_processes_improve_and_are_counted(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three slots in two processes reach the end, and the run is shown."""
    flags = [*TINY, "--workers", "3", "--processes", "2", "--steps_per_exploit", "10"]
    run = train_processes.main(
        [*flags, "--steps", "45", "--every", "5", "--log_dir", str(tmp_path)]
    )
    values = [c.value for c in run.history() if c.value is not None]
    best = run.best()
    assert best is not None
    assert best.value is not None
    assert best.value < values[0]
    assert [worker.step for worker in run.workers] == [45] * 3
    shown = capsys.readouterr().out
    assert "with 2 processes, of which 0 died" in shown
    assert (tmp_path / "plots" / "learning_rate.png").exists()


def test_a_stack_improves_and_goes_on(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three members as one program reach the end; more steps continue from there."""
    flags = ["--width", "4", "--batch_size", "16", "--members", "3", "--every", "5"]
    flags += ["--log_dir", str(tmp_path), "--steps_per_exploit", "10"]
    flags += ["--batching", "vmap"]
    train_vectorized.main([*flags, "--steps", "20"]).close()
    run = train_vectorized.main([*flags, "--steps", "45"])
    values = [c.value for c in run.history() if c.value is not None]
    best = run.best()
    assert best is not None
    assert best.value is not None
    assert best.value < values[0]
    assert [worker.step for worker in run.workers] == [45] * 3
    assert "5 rounds of 3 members, batched by vmap" in capsys.readouterr().out
    assert (tmp_path / "plots" / "learning_curves.png").exists()


def test_a_stacked_population_wins_where_no_member_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Members that see half of the problem get nearly all of it by copying weights."""
    alone, _ = stacked_toy.train(64, evolve=False, batching="vmap")
    together, _ = stacked_toy.train(64, batching="vmap")
    best_alone, best = alone.best(), together.best()
    assert best_alone is not None
    assert best is not None
    assert (best_alone.value or 9) <= 0.45
    assert (best.value or 0) > 1.0
    first = [c for c in together.history() if c.step == 10 and c.value is not None]
    assert len({c.value for c in first}) > 32  # No copy depends on rounding.
    copied = {c.generation_id for c in together.history() if "copied" in c.reason}
    assert len(copied) > 64
    stacked_toy.main(["--members", "8", "--steps", "20"])
    assert "no PBT  best" in capsys.readouterr().out


@pytest.mark.parametrize("size", [7, 8])
def test_a_convolution_of_patches_is_a_convolution(size: int) -> None:
    """The same parameters from the same key, and the same numbers."""
    images = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))
    usual = model.CNN(10, 4)
    ours = usual.copy(convolution=PatchConv)
    weights = usual.init(jax.random.key(1), images)
    jax.tree.map(
        np.testing.assert_array_equal, weights, ours.init(jax.random.key(1), images)
    )
    one: Any = usual.apply(weights, images)
    other: Any = ours.apply(weights, images)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_missing_data_end_the_program_with_advice(tmp_path: pathlib.Path) -> None:
    """A user without CIFAR-10 is told how to get it, and sees no traceback."""
    with pytest.raises(SystemExit, match="prepare_cifar10"):
        train_threads.main(["--dataset", "cifar10", "--data_dir", str(tmp_path)])
