"""The bars show what each slot has reported itself."""

from __future__ import annotations

import io

import pytest
import rich
from rich.console import Console

from population import PopulationController, Stop
from population.report import progress
from tests.helpers import Scripted, branch_at, reporter


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the bars print."""
    found = io.StringIO()
    console = Console(file=found, width=200)
    monkeypatch.setattr(rich, "_console", console)
    return found


def last_lines(run: PopulationController, stream: io.StringIO) -> list[str]:
    """The bars as they are at the end of a block."""
    with progress.bars(run):
        pass
    return [line for line in stream.getvalue().splitlines() if line.strip()]


def test_a_bar_shows_the_newest_report_of_its_slot(stream: io.StringIO) -> None:
    """Not what a decision has assigned since."""
    run = PopulationController(
        [{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.9})), stop=Stop(steps=4)
    )
    reporter(run)(1.0)
    reporter(run)(0.123456)
    (line,) = last_lines(run, stream)
    assert "2/4 steps value 0.123  lr 0.1" in line


def test_a_retired_slot_is_said_to_be(stream: io.StringIO) -> None:
    """Its bar stays where it was."""
    run = PopulationController(
        [0.1, 0.2], Scripted(), stop=Stop(steps=4), max_failures=1
    )
    reporter(run, 1)(1.0)
    run.fail(1, "a pity")
    first, second = last_lines(run, stream)
    assert "retired" not in first
    assert "1/4 steps retired  value 1" in second


def test_one_bar_for_all_counts_retired_slots_as_done(stream: io.StringIO) -> None:
    """So that it is full at the end of the run."""
    run = PopulationController(
        [0.1] * 17, Scripted(), stop=Stop(steps=4), max_failures=1
    )
    reporter(run, 1)(0.5)
    run.fail(3, "a pity")
    (line,) = last_lines(run, stream)
    assert "17 workers" in line
    assert "5/68 steps 1 retired  best 0.5" in line
