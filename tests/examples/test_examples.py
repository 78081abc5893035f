"""The examples: each improves, each can be run again, each says what is wrong."""

from __future__ import annotations

import pathlib

import pytest

from examples.simple_cnn import train, train_processes, train_threads
from examples.synthetic import train as synthetic

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
    """Two halves of a run are the same as the whole."""
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
    """The CNN gets better on validation; more steps go on from the saved weights."""
    flags = [*TINY, "--log_dir", str(tmp_path), "--explore_steps", "5"]
    flags += ["--exploit_steps", "10"]
    first = train.main([*flags, "--steps", "20"])
    before = first.best()
    first.close()
    second = train.main([*flags, "--steps", "60"])
    after = second.best()
    assert before is not None
    assert after is not None
    assert (after.value or 9) < (before.value or 0)
    assert second.workers[0].step >= 60
    assert "test accuracy" in capsys.readouterr().out
    assert (tmp_path / "plots" / "learning_rate.png").exists()


def test_threads_improve_and_say_what_the_controller_took(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three slots on two threads reach the end; table, pictures and share are shown."""
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
    assert "cpu" in shown
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


def test_missing_data_end_the_program_with_advice(tmp_path: pathlib.Path) -> None:
    """Somebody without CIFAR-10 is told how to get it, and sees no traceback."""
    with pytest.raises(SystemExit, match="prepare_cifar10"):
        train_threads.main(["--dataset", "cifar10", "--data_dir", str(tmp_path)])
