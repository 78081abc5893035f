"""Which way of batching is chosen, and that trying them leaves no trace."""

from __future__ import annotations

import logging
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from population.base import codec
from population.engines.stacked import autotune
from tests.engines.stacked import problems
from tests.engines.stacked.problems import PLAIN
from tests.helpers import Clock


class Bench:
    """Rounds that take as long as they are said to, by a clock of their own.

    Args:
        seconds: By name, of each run after the first.
        compiling: Seconds that each first run takes on top.
    """

    def __init__(self, seconds: dict[str, float], compiling: float = 0.0) -> None:
        self.clock = Clock()
        self.runs: Counter[str] = Counter()
        self._seconds, self._compiling = seconds, compiling

    def make(self, name: str) -> Callable[[], None]:
        """A function that lets time pass."""

        def run() -> None:
            self.runs[name] += 1
            first = self.runs[name] == 1
            self.clock.advance(self._seconds[name] + first * self._compiling)

        return run

    def fastest(self) -> str:
        """The choice."""
        ways = tuple(self._seconds)
        return autotune.fastest(self.make, "a moment", ways, self.clock).batching


@pytest.mark.parametrize("best", problems.BATCHINGS)
def test_the_fastest_is_chosen(best: str) -> None:
    """Wherever it is in the order, and however long compiling takes."""
    seconds = dict.fromkeys(problems.BATCHINGS, 0.2) | {best: 0.1}
    assert Bench(seconds, compiling=5.0).fastest() == best


def test_one_that_is_much_slower_is_given_up() -> None:
    """Beyond three times the best it runs once to compile and once to be timed."""
    bench = Bench({"vmap": 0.1, "map": 0.31, "loop": 0.29})
    assert bench.fastest() == "vmap"
    assert bench.runs["map"] == 2
    assert bench.runs["loop"] == bench.runs["vmap"] == 4


def test_a_single_hiccup_decides_nothing() -> None:
    """The median of several runs counts."""
    bench = Bench({"map": 0.12, "vmap": 0.1})

    def make(name: str) -> Callable[[], None]:
        run = bench.make(name)

        def slow_once() -> None:
            run()
            if name == "vmap" and bench.runs[name] == 3:
                bench.clock.advance(1)

        return slow_once

    chosen = autotune.fastest(make, "", ("map", "vmap"), bench.clock)
    assert chosen == ("vmap", True)


def test_short_rounds_are_repeated_until_they_say_something() -> None:
    """A tenth of a second is looked at; slow ones are looked at once."""
    short = Bench({"vmap": 0.01, "map": 0.01})
    short.fastest()
    assert short.runs["vmap"] >= 10
    long = Bench({"vmap": 100.0, "map": 90.0})
    assert long.fastest() == "map"
    assert long.runs == {"vmap": 2, "map": 2}


def test_the_choice_is_logged_with_its_times(caplog: pytest.LogCaptureFixture) -> None:
    """Milliseconds of each way, and of what."""
    with caplog.at_level(logging.INFO, "population"):
        Bench({"vmap": 0.4, "loop": 0.8}).fastest()
    assert "batched by vmap" in caplog.text
    assert "a moment: vmap 400 ms" in caplog.text
    assert "loop 800 ms" in caplog.text


def favour(monkeypatch: pytest.MonkeyPatch, best: str) -> list[str]:
    """Have the trials run, and this one win; the list of those that were tried."""
    tried: list[str] = []

    def fastest(make: Callable[[str], Callable[[], Any]], *rest: Any) -> Any:
        for name in problems.BATCHINGS:
            tried.append(name)
            make(name)()
        return autotune.Choice(best, for_good=True)

    monkeypatch.setattr(autotune, "fastest", fastest)
    return tried


@pytest.mark.parametrize("best", problems.BATCHINGS)
def test_trying_changes_nothing_in_the_run(
    best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that chooses is the run with the choice named: copies were trained."""
    options: Any = {"batches": lambda seed, worker_id, step: problems.INPUTS}
    chosen, named = problems.controller(), problems.controller()
    problems.run(named, PLAIN, batching=best, **options)
    favour(monkeypatch, best)
    summary = problems.run(chosen, PLAIN, batching="auto", **options)
    assert summary.batching == best
    problems.assert_alike(chosen, named)


def test_the_choice_is_recorded_and_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on tries nothing again; one that is named wins over both."""
    tried = favour(monkeypatch, "map")
    found = problems.controller(log_dir=tmp_path, steps=4)
    assert problems.run(found, PLAIN, batching="auto").batching == "map"
    facts = found.session.journal.facts()
    fact = facts["batching on 1 cpu, 2 steps a report"]
    assert codec.decode(fact) == "map"
    found.close()
    tried.clear()
    again = problems.controller(log_dir=tmp_path, steps=6)
    assert problems.run(again, PLAIN, batching="auto").batching == "map"
    assert tried == []
    again.close()
    named = problems.controller(log_dir=tmp_path, steps=8)
    assert problems.run(named, PLAIN, batching="vmap").batching == "vmap"
    named.close()


def test_a_choice_by_name_is_kept_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on without naming it gets what the run began with."""
    tried = favour(monkeypatch, "vmap")
    found = problems.controller(log_dir=tmp_path, steps=4)
    problems.run(found, PLAIN, batching="map")
    found.close()
    again = problems.controller(log_dir=tmp_path, steps=6)
    assert problems.run(again, PLAIN, batching="auto").batching == "map"
    assert tried == []
    again.close()


def test_the_choice_is_left_to_the_clock_by_default() -> None:
    """Without an argument all are tried, and one is taken."""
    found = problems.controller(size=2, steps=2)
    summary = problems.run(found, PLAIN, batching="auto")
    assert summary.batching in problems.BATCHINGS
    assert found.finished
