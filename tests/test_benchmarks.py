"""The benchmarks run, and the README shows their results."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import pytest

from benchmarks import record, render
from benchmarks.speed import (
    cold,
    decisions,
    filling,
    population,
    processes,
    saving,
    subjects,
    ticks,
    tune,
    ways,
)
from population.mutators import REGISTRY


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run of tiny sizes."""
    out = tmp_path_factory.mktemp("bench") / "ticks.json"
    ticks.main(["--quick", "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_result_says_where_when_and_with_what_it_was_got(
    result: dict[str, Any],
) -> None:
    """A figure without its circumstances cannot be repeated."""
    assert {"title", "about", "command", "date", "commit", "seed"} <= set(result)
    assert set(result["machine"]) == {
        "cpu",
        "cores",
        "memory_gb",
        "system",
        "file_system",
        "load_average",
    }
    assert {"python", "sqlite", "numpy"} <= set(result["versions"])
    assert result["command"] == "python -m benchmarks.speed.ticks --quick"
    assert all(
        len(samples) == result["repetitions"]
        for samples in result["microseconds"].values()
    )


def test_each_goal_has_a_figure(result: dict[str, Any]) -> None:
    """Every goal is judged: 2.6 and 1.5 inserts, 1.3, 2 s, 300 MB, 0.1 s, no JAX."""
    goals = {f["at_most"]: f for f in result["figures"] if "at_most" in f}
    assert set(goals) == {2.6, 1.5, 1.3, 2.0, 300.0, 0.1, 0.0}
    for figure in goals.values():
        judged = figure.get("ratio") or figure["value"]
        assert judged["low"] <= judged["median"] <= judged["high"]
        assert figure["met"] == (judged["median"] <= figure["at_most"])


def test_the_peer_has_a_figure_or_a_reason(result: dict[str, Any]) -> None:
    """A comparison that could not be made says so."""
    rows = [f for f in result["figures"] if "learned_optimization" in f["section"]]
    assert rows
    assert all("value" in row or "learned_optimization" in row["note"] for row in rows)


def test_a_result_names_no_folder(result: dict[str, Any]) -> None:
    """Results are committed: they do not identify a machine."""
    text = json.dumps(result)
    places = (pathlib.Path.home(), record.HERE.parent, pathlib.Path.cwd())
    for place in (*map(str, places), tempfile.gettempdir()):
        assert place + "/" not in text


def test_what_is_compared_takes_turns() -> None:
    """Each subject has the same number of turns, of the requested size."""
    turns: list[str] = []

    def subject(name: str, done: int) -> subjects.Subject:
        def run(count: int) -> tuple[float, int]:
            assert count == 10
            turns.append(name)
            return 1e-6 * done, done

        return run

    both = {"a": subject("a", 10), "b": subject("b", 1)}
    assert subjects.taking_turns(both, 2, 3, 10) == {
        "a": pytest.approx([1.0, 1.0]),
        "b": pytest.approx([1.0, 1.0]),
    }
    pairs = zip(turns[::2], turns[1::2], strict=True)
    assert [sorted(pair) for pair in pairs] == [["a", "b"]] * 6


def test_a_run_of_a_size_is_made_anew_before_it_has_doubled(
    tmp_path: pathlib.Path,
) -> None:
    """A run with the name 30 checkpoints never has more than 60."""
    run = subjects.Ticks(ticks.ours, tmp_path, workers=2, size=30)
    for _ in range(5):
        _, count = run(20)
        assert count == 20
        recorded = sum(worker.step for worker in run.controller.workers)
        assert 30 < recorded <= 60
    run.close()


def test_the_readme_is_what_the_results_say() -> None:
    """Tables are generated: a table that was typed or is outdated fails here."""
    written = render.README.read_text()
    assert written == render.render(record.RESULTS.glob("*.json"))
    assert "Speed of a tick" in written


def test_every_figure_is_shown(result: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """Render shows everything, and gives the same text each time."""
    path = tmp_path / "ticks.json"
    record.write(path, result)
    shown = render.render([path])
    assert shown == render.render([path])
    for figure in result["figures"]:
        assert f"| {figure['what']} |" in shown
        assert f"### {figure['section']}" in shown


def test_every_policy_of_the_registry_has_a_figure_for_its_decisions(
    tmp_path: pathlib.Path,
) -> None:
    """The benchmark of decisions runs, and includes each policy."""
    out = tmp_path / "decisions.json"
    decisions.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text())["figures"]
    for kind in REGISTRY.values():
        rows = [row for row in found if kind.__name__ in row["what"]]
        assert len(rows) >= 2
        assert all(row["value"]["median"] > 0 for row in rows)


def test_a_goal_may_be_a_least_value() -> None:
    """If more is better, the goal is a minimum."""
    mean = record.Interval(1.5, 1.0, 2.0)
    rows = [
        record.Figure("s", "x", value=mean, at_least=goal).as_json()
        for goal in (1.2, 1.8)
    ]
    assert [row["met"] for row in rows] == [True, False]


def test_several_processes_are_compared_with_bare_inserts(
    tmp_path: pathlib.Path,
) -> None:
    """The total is judged against inserts, and the slowest against the mean."""
    out = tmp_path / "processes.json"
    processes.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text())
    assert all(
        len(done) == processes.PROCESSES
        for kind in found["counts"].values()
        for done in kind
    )
    goals = {f["section"]: f["at_least"] for f in found["figures"] if "at_least" in f}
    assert list(goals.values()) == [pytest.approx(1 / 3), 0.5]
    assert "Several processes" in render.render([out])


def test_what_several_processes_did_is_added_up() -> None:
    """Rates are totals; the slowest is compared within a repetition."""
    counts = {
        processes.BARE: [[40, 40, 40, 40], [10, 10, 10, 10]],
        processes.TICKS: [[10, 20, 30, 20], [5, 5, 5, 5]],
    }
    bare, ticked, _, fair = processes.figures(counts, 2.0)
    assert bare.value == record.Spread(50.0, 20.0, 80.0)
    assert ticked.ratio == record.Spread(0.5, 0.5, 0.5)
    assert fair.value == record.Spread(0.75, 0.5, 1.0)


@pytest.mark.parametrize("benchmark", [cold, processes, saving])
def test_a_quick_look_overwrites_no_results(benchmark: Any) -> None:
    """Tiny sizes are no result."""
    with pytest.raises(SystemExit):
        benchmark.main(["--quick"])


def test_whole_populations_are_compared_in_one_run(tmp_path: pathlib.Path) -> None:
    """The loop, the stack and the bare program train the same; each has its figures."""
    sizes = dataclasses.replace(
        population.QUICK,
        ways=(population.LOOP, population.STACKED, *population.LIMITS),
        rounds={1: 4},
    )
    figures = list(population._each_way(sizes, tmp_path))
    told = {figure.what: figure for figure in figures}
    assert {*sizes.ways, "(f) Ray Tune"} <= set(told)
    assert told[population.STACKED].at_most == population.WITHIN[1]
    for name in sizes.ways:
        ratio = told[name].ratio
        assert ratio is not None
        assert ratio.low > 0
    best = min(told[name].ratio or (9.0,) for name in population.LIMITS)
    assert best[0] == 1.0


def test_a_run_without_a_copy_is_no_measurement(
    tmp_path: pathlib.Path,
) -> None:
    """What is called PBT must decide while it is timed."""
    task = ways.Task("toy", 2, 1, 4)
    task = dataclasses.replace(task, exploit_steps=100)
    with pytest.raises(RuntimeError, match="No member has copied"):
        ways.one_by_one(task, tmp_path / "run")


def test_the_time_under_ray_tune_is_that_of_its_best_quarter() -> None:
    """It excludes trials that begin, or wait for a process."""
    task = ways.Task("mlp", 2, 10, 4)
    times = [(1.0, "a"), (4.0, "a"), (5.0, "b"), (5.5, "a"), (6.25, "b")]
    times += [(9.0, "a"), (10.0, "b"), (14.0, "b")]
    timing = tune.timing(task, times, 0.5)
    assert (timing.startup_s, timing.seconds, timing.member_steps) == (0.5, 1.25, 20)


def test_how_a_stack_fills_the_device_is_measured(tmp_path: pathlib.Path) -> None:
    """The curve over N, one big batch, bytes, members, and the parts of a round."""
    rows = list(filling.figures(filling.QUICK, tmp_path))
    fractions = [row for row in rows if "fraction" in row.what]
    assert len(fractions) == len(filling.QUICK.members)
    assert all(row.ratio is not None and row.ratio.low > 0 for row in fractions)
    shares = [row.value[0] for row in rows if row.unit == "%" and row.value]
    assert len(shares) == 5
    assert shares[0] > 0  # Steps take time, but not more than the round.
    assert all(share < 100 for share in shares[:4])
    assert {"state of a member", "members that fit"} <= {row.what for row in rows}


def test_a_script_by_hand_and_the_engine_train_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both need as many steps to the same accuracy; so their seconds are compared."""
    monkeypatch.setattr(cold, "MEMBERS", 2)
    monkeypatch.setattr(cold, "ENOUGH", 0.9)
    (by_hand,) = cold.trained(cold.BY_HAND, [1])
    (stacked,) = cold.trained(cold.IN_MEMORY, [1])
    assert by_hand.steps == stacked.steps < cold.MOST_STEPS
    assert stacked.batching == "vmap"


def test_cold_processes_and_later_runs_are_judged_beside_the_script_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole processes by their seconds, later runs without the first run of each."""
    took = {cold.BY_HAND: 10.0, cold.AUTO: 12.0, cold.IN_MEMORY: 1.0}

    def process(way: str, seeds: Any) -> cold.Process:
        first, later = (9.0, 1.0) if way == cold.BY_HAND else (11.0, 1.05)
        seconds = [first, *[later] * (len(seeds) - 1)]
        runs = [cold.Run(s, 2 * s, 75, "vmap") for s in seconds]
        return cold.Process(took.get(way, 20.0), 30.0, runs)

    monkeypatch.setattr(cold, "_process", process)
    everything = list(cold._figures(2, 3))
    assert len({(f.section, f.what) for f in everything}) == len(everything) == 16
    figures = [f for f in everything if f.at_most is not None]
    assert [f.at_most for f in figures] == [cold.COLD, cold.AGAIN]
    ratios = [f.ratio[0] for f in figures if f.ratio is not None]
    assert ratios == pytest.approx([1.2, 1.05])


def test_a_peer_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who asks for the comparison is told how to install it."""
    monkeypatch.setattr(tune, "is_installed", lambda: False)
    with pytest.raises(SystemExit):
        population.main(["--peers"])
    assert "make bench-peers" in capsys.readouterr().err
