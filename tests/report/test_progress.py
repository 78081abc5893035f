"""The display says what each slot has reported itself, and when the run may end."""

from __future__ import annotations

import importlib.machinery
import io
import pathlib
import sys
import threading
import time
import types
from typing import Any

import pytest
from rich.console import Console

from population import PopulationController, Stop
from population.report import displays, progress
from population.report.pace import Pace
from population.report.progress_lines import duration, population_line, screen
from population.report.run_watch import RunWatch
from tests.helpers import Clock, Scripted, branch_at, reporter


def lines(
    run: PopulationController, width: int = 120, height: int = 24, **options: Any
) -> list[str]:
    """What a screen of this size shows."""
    watch = RunWatch(run, options.pop("clock", Clock()), **options)
    return [line.text() for line in screen(watch, width, height)]


def population(size: int, **options: Any) -> PopulationController:
    """A run of members with different hyperparameters."""
    metas = [{"lr": float(worker_id)} for worker_id in range(size)]
    options.setdefault("mutator", Scripted())
    options.setdefault("stop", Stop(steps=4))
    return PopulationController(metas, **options)


def test_a_line_shows_the_newest_report_of_its_slot() -> None:
    """Not what a decision has assigned since."""
    run = PopulationController(
        [{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.9})), stop=Stop(steps=4)
    )
    reporter(run)(1.0)
    reporter(run)(0.123456)
    first, second = lines(run)
    assert first.startswith("1 worker  ━━━━━━━━━━━━────────────  2/4 steps  ")
    assert "best 0.123 (worker 0)  1 branch  0 failures" in first
    assert (
        second == "worker 0  ━━━━━━━━━━━━────────────  2/4 steps  value 0.123  lr 0.1"
    )


def test_a_look_follows_the_run(clock: Clock) -> None:
    """What was read before is not shown again once it has changed."""
    run = population(2, mutator=Scripted(branch_at(2, {"lr": 7.0}, back_to=1)))
    watch = RunWatch(run, clock)
    reporter(run)(None)
    assert "1/4 steps  lr 0" in screen(watch, 120, 24)[1].text()
    slot = run.workers[0]
    run.set_eval(0, slot.generation_id, 1, "p", 3.5)  # The value comes late.
    assert "1/4 steps  value 3.5  lr 0" in screen(watch, 120, 24)[1].text()
    reporter(run)(2.0)
    assert "2/4 steps  value 2  lr 0" in screen(watch, 120, 24)[1].text()
    reporter(run)(1.5)
    assert "2/4 steps  value 1.5  lr 7" in screen(watch, 120, 24)[1].text()
    assert "best 1.5 (worker 0)  2 branches " in screen(watch, 120, 24)[0].text()


def test_restarts_are_no_branches(tmp_path: pathlib.Path) -> None:
    """Only generations that a decision has opened count, those of before too."""
    decide = branch_at(2, {"lr": 7.0}, back_to=1)
    first = population(2, mutator=Scripted(decide), log_dir=tmp_path)
    reporter(first)(1.0)
    reporter(first)(1.0)
    first.fail(0, "a pity")
    first.close()
    run = population(2, mutator=Scripted(decide), log_dir=tmp_path)
    assert "1 branch  1 failure" in lines(run)[0]
    assert "failed 1x" in lines(run)[1]
    run.close()


def test_every_failure_counts() -> None:
    """Also those that others have followed before the next look."""
    run = population(2, max_failures=None)
    watch = RunWatch(run, Clock())
    for worker_id in (0, 1, 1, 1, 0):
        run.fail(worker_id, "a pity")
        if worker_id == 0:
            watch.look()
    reporter(run, 0)(1.0)
    assert watch.look().failures == 5
    assert watch.member(0).failures == 0
    assert watch.member(1).failures == 3


def test_a_retired_slot_is_said_to_be_and_counts_as_done() -> None:
    """So that the bar of the population is full at the end of the run."""
    run = population(2, max_failures=1)
    reporter(run, 1)(1.0)
    run.fail(1, "a pity")
    for _ in range(4):
        reporter(run, 0)(2.0)
    first, second, third = lines(run)
    assert "─" not in first
    assert "4/4 steps" in first
    assert "best 1 (worker 1)" in first
    assert "1 failure  1 retired" in first
    assert "retired" not in second
    assert "1/4 steps  retired  failed 1x  value 1  lr 1" in third


def test_without_an_end_there_is_no_bar() -> None:
    """The steps are shown alone, and no time is guessed."""
    run = population(2, stop=None)
    reporter(run)(0.5)
    assert lines(run) == [
        "2 workers  1 steps  mean 0  best 0.5 (worker 0)  0 branches  0 failures  "
        "0:00 elapsed",
        "worker 0  1 steps  value 0.5  lr 0",
        "worker 1  0 steps  lr 1",
    ]


def test_members_that_do_not_fit_give_way_to_the_best() -> None:
    """The five with the best newest values are shown, by the run's mode."""
    run = population(40, mode="max")
    for worker_id, value in ((3, 1.0), (4, 5.0), (5, float("inf")), (6, 3.0)):
        reporter(run, worker_id)(value)
    found = lines(run, height=24)
    assert len(found) == 7
    assert [line.split()[1] for line in found[1:4]] == ["4", "6", "3"]
    assert found[-1] == "and 35 more"
    assert len(lines(run, height=41)) == 41
    assert len(lines(run, height=3)) == 3
    assert len(lines(run, height=1)) == 1


@pytest.mark.parametrize("width", [10, 40, 80, 120, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    """What matters less is left out; steps, best and time are there at 60 columns."""
    meta = {f"parameter_{number}": "価値" * 9 for number in range(9)}
    clock = Clock()
    run = PopulationController(
        [meta] * 3, Scripted(), stop=Stop(steps=400), max_failures=1
    )
    watch = RunWatch(run, clock)
    screen(watch, width, 24)
    for worker_id, steps in enumerate((2, 3, 1)):
        for step in range(steps):
            reporter(run, worker_id)(0.0123456 * step)
    run.fail(2, "a pity")
    clock.advance(10)
    found = [line.text() for line in screen(watch, width, 24)]
    console = Console(width=1000)
    assert max(console.measure(line).maximum for line in found) <= width
    if width >= 60:
        assert "3/400 steps" in found[0]
        assert "best 0 (worker 0)" in found[0]
        assert " left" in found[0]
    if width >= 80:
        assert "0 branches  1 failure" in found[0]


def test_control_characters_reach_no_terminal() -> None:
    """Names and values of hyperparameters are shown with escapes."""
    run = PopulationController([{"a\x1b[2J": "\x07b"}], Scripted())
    assert lines(run)[1] == r"worker 0  0 steps  a\x1b[2J \x07b"


def test_the_time_left_follows_the_pace_of_the_steps(clock: Clock) -> None:
    """Of the last steps, as the first ones include compilations."""
    run = population(2, stop=Stop(steps=20))
    watch = RunWatch(run, clock)
    watch.look()
    clock.advance(100)
    assert watch.look().left_s is None
    for seconds in (0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10):
        clock.advance(seconds)
        reporter(run, 0)(1.0)
        reporter(run, 1)(1.0)
        progress = watch.look()
    assert progress.left_s == pytest.approx(90)
    clock.advance(5)
    progress = watch.look()
    assert progress.left_s == pytest.approx(85)
    assert "1:25 left" in population_line(progress).text()
    assert "3:25 elapsed" in population_line(progress).text()


@pytest.mark.parametrize(
    ("stop", "left_s"),
    [
        (Stop(steps=4), 20),
        (Stop(steps=4, reports=3), 10),
        (Stop(steps=4, reports=3, seconds=23), 3),
        (Stop(reports=2), 0),
    ],
)
def test_the_first_limit_ends_the_run(stop: Stop, left_s: float, clock: Clock) -> None:
    """Steps, reports and seconds each give an estimate."""
    run = population(1, stop=stop, clock=clock)
    watch = RunWatch(run, clock)
    watch.look()
    for _ in range(2):
        clock.advance(10)
        reporter(run)(1.0)
        progress = watch.look()
    assert progress.left_s == pytest.approx(left_s)


def test_a_burst_of_reports_is_no_fast_pace() -> None:
    """Members that report one after the other do so once a round."""
    pace = Pace()
    pace.note(0, 0)
    for member in range(8):
        pace.note(10 + member / 1000, member + 1)
    assert pace.left_s(10.007, 8) == pytest.approx(10, rel=0.01)
    for second in range(1000):
        pace.note(20 + second / 10, 8 + second)
    assert pace.left_s(120, 100) == pytest.approx(10, rel=0.05)


def test_times_are_short() -> None:
    """Minutes and seconds, with hours if there are any."""
    assert [*map(duration, (0, 59.6, 125, 3725))] == ["0:00", "1:00", "2:05", "1:02:05"]


def on_console(run: PopulationController, stream: io.StringIO, **options: Any) -> str:
    """What a display on a console has printed at the end of a block."""
    console = Console(file=stream, width=100, height=10, **options)
    with progress.bars(run, console=console, clock=Clock()):
        pass
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines() -> None:
    """One line of the population each time, the last one at the end."""
    run = population(20)
    reporter(run, 7)(0.5)
    line = "20 workers  1/4 steps  mean 0  best 0.5 (worker 7)  0 branches  0 failures"
    assert on_console(run, io.StringIO()) == f"{line}  0:00 elapsed\n"
    stream = io.StringIO()
    plain = displays.display_on(Console(file=stream, width=40), 30.0)
    assert plain.interval_s == 30.0
    watch = RunWatch(run, Clock())
    plain.show(watch)
    plain.show(watch)
    assert stream.getvalue().count("\n") == 2
    dumb = Console(file=stream, force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(displays.display_on(dumb, 30.0), displays.PlainDisplay)


def test_a_terminal_shows_all_lines_at_one_place() -> None:
    """At the end they stay there, with the last state of the run."""
    run = population(3)
    reporter(run, 2)(0.5)
    stream = io.StringIO()
    console = Console(file=stream, width=100, height=10, force_terminal=True)
    display = displays.display_on(console, 30.0)
    assert isinstance(display, displays.TerminalDisplay)
    watch = RunWatch(run, Clock())
    with display:
        display.show(watch)
        first = stream.getvalue()
        reporter(run, 2)(0.25)
        display.show(watch)
    assert first.count("\n") == 3
    last = stream.getvalue()[len(first) :]
    assert last.count("\x1b[1A") >= 3  # The cursor goes up.
    assert "value 0.25" in last
    assert "━" in last


def test_a_terminal_without_unicode_gets_other_bars() -> None:
    """No character is written that its encoding does not have."""
    run = PopulationController([{"größe": 1.0}], Scripted(), stop=Stop(steps=2))
    reporter(run)(1.0)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", write_through=True)
    console = Console(file=stream, width=60, height=10, force_terminal=True)
    with progress.bars(run, console=console):
        pass
    text = raw.getvalue().decode()
    assert "gr??e 1" in text
    assert "######" in text


def test_quiet_shows_nothing() -> None:
    """And it does not look at the run."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True)
    with progress.bars(population(1), quiet=True, console=console):
        assert "population-bars" not in [t.name for t in threading.enumerate()]
    assert stream.getvalue() == ""


def test_a_pause_between_lines_is_positive() -> None:
    """Else nothing would ever sleep."""
    with (
        pytest.raises(ValueError, match=r"every_s must be a positive number, got 0\."),
        progress.bars(population(1), every_s=0),
    ):
        pass


def test_a_run_that_is_closed_within_the_block_is_no_error() -> None:
    """The last state that was seen stays."""
    run, stream = population(1), io.StringIO()
    with progress.bars(run, console=Console(file=stream)):
        run.close()
    assert stream.getvalue() == ""


def test_the_display_sleeps_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that has cost 50 ms is followed by a pause of 5 s."""
    pauses: list[float] = []
    times = iter((0.0, 0.05, 1.0, 1.0001))

    class Watched(threading.Event):
        """An event that notes how long it is waited for."""

        def wait(self, timeout: float | None = None) -> bool:
            """Return whether three looks are done."""
            pauses.append(timeout or 0)
            return len(pauses) == 3

    monkeypatch.setattr(time, "thread_time", lambda: next(times))
    console = Console(file=io.StringIO(), force_terminal=True)
    display, watch = displays.TerminalDisplay(console), RunWatch(population(1), Clock())
    progress._keep_on(display, watch, Watched())
    assert pauses == [0.25, 5.0, 0.25]


def test_a_notebook_has_one_output_that_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look replaces it, and nothing is sent if nothing has changed."""
    sent: list[Any] = []

    class Output:
        """The output of a cell."""

        def update(self, content: Any, *, raw: bool) -> None:
            """Replace it."""
            sent.append(("update", content["text/plain"], raw))

    def display(content: Any, *, raw: bool, display_id: bool) -> Output:
        sent.append(("display", content["text/plain"], raw and display_id))
        return Output()

    for name in ("IPython", "IPython.display"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setattr(module, "display", display, raising=False)
        monkeypatch.setitem(sys.modules, name, module)
    console = Console(file=io.StringIO(), force_jupyter=True)
    shown, run = displays.display_on(console, 30.0), population(50)
    watch = RunWatch(run, Clock())
    shown.show(watch)
    shown.show(watch)
    reporter(run, 7)(0.5)
    shown.show(watch)
    assert [(kind, done) for kind, _, done in sent] == [
        ("display", True),
        ("update", True),
    ]
    assert sent[1][1].splitlines()[1].startswith("worker  7 ")
    assert sent[1][1].splitlines()[-1] == "and 45 more"


def test_a_notebook_without_ipython_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So nothing is written again and again."""
    monkeypatch.setitem(sys.modules, "IPython", None)
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert isinstance(displays.display_on(console, 30.0), displays.PlainDisplay)
