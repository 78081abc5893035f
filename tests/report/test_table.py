"""The final table: each member's result, status and costs, at any width."""

from __future__ import annotations

import io
import math
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from population import Branch, PopulationController, PopulationView, Report, Stop
from population.report import table
from tests.helpers import Clock, Scripted, branch_at, reporter


def printed(run: PopulationController, width: int = 200, **options: Any) -> str:
    """What the table looks like at a width."""
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    table.print_workers(run, console=console, **options)
    return stream.getvalue()


def cells(text: str) -> list[list[str]]:
    """The cells of each line; columns are two spaces apart."""
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line != [""]]


def trained(metas: list[Any], *, steps: int = 2, **options: Any) -> Any:
    """A run whose members have made some steps of 10 s each."""
    clock = Clock()
    run = PopulationController(metas, Scripted(), clock=clock, **options)
    for worker_id in range(len(metas)):
        for _ in range(steps):
            clock.advance(10.0)
            reporter(run, worker_id)(1 / 3)
    return run


def test_a_row_is_what_a_member_has_trained() -> None:
    """Steps, value, further columns, hyperparameters, status and costs."""
    run = trained([{"lr": 0.123456}, {"lr": 0.2}], stop=Stop(steps=2))
    rows = cells(
        printed(run, value="loss", extra={"test": [0.987654, 1], "none": [None, 2]})
    )
    assert rows[0] == ["wall", "steps"]
    assert rows[1] == "worker steps loss test none lr status".split() + (
        "branches restarts time trained".split()
    )
    assert rows[-2:] == [
        "0,2,0.333,0.988,0.123,at its end,0,0,20 s,2".split(","),
        "1,2,0.333,1,2,0.2,at its end,0,0,40 s,2".split(","),
    ]


def test_a_value_stands_beside_the_hyperparameters_that_gave_it() -> None:
    """A branch at the very end is counted, but nobody has trained with it yet."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(1, {"lr": 0.9})))
    reporter(run)(0.5)
    (row,) = cells(printed(run))[-1:]
    assert row[:7] == ["0", "1", "0.5", "0.1", "training", "1", "0"]
    reporter(run)(0.25)
    (row,) = cells(printed(run))[-1:]
    assert row[:7] == ["0", "2", "0.25", "0.9", "training", "1", "0"]


def test_a_save_without_a_value_leaves_the_value_of_its_generation() -> None:
    """But never that of other hyperparameters."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(1, {"lr": 0.9})))
    report = reporter(run)
    report(0.5)
    report(None)
    assert cells(printed(run))[-1][:4] == ["0", "2", "0.9", "training"]
    report(0.25)
    report(None)
    assert cells(printed(run))[-1][:4] == ["0", "4", "0.25", "0.9"]


def test_failures_have_a_count_and_a_line_with_the_last_reason() -> None:
    """Also of a member that has recovered, or is retired."""
    run = trained([0.1, 0.2, 0.3, 0.4], max_failures=2)
    run.fail(0, "[red]no\nspace")
    run.fail(1, "first")
    run.fail(1, "second")
    run.fail(2, "a flood")
    reporter(run, 2)(0.5)
    text = printed(run)
    status = [row[4] for row in cells(text)[3:7]]
    assert status == [
        "failed once",
        "failed 2 times, retired",
        "training, failed once",
        "training",
    ]
    assert text.splitlines()[-3:] == [
        "worker 0, failed once: [red]no space",
        "worker 1, failed 2 times, retired: second",
        "worker 2, training, failed once: a flood",
    ]


def test_a_long_reason_is_not_cut() -> None:
    """It is what a user needs; what a terminal would act on is escaped."""
    run = trained([0.1])
    run.fail(0, "x" * 300 + "\x1b[31m")
    text = printed(run, width=80)
    assert "x" * 300 + "\\x1b[31m" in text.replace("\n", "")


def test_restarts_are_counted_apart_from_branches() -> None:
    """A resumption is no decision."""
    run = trained([0.1])
    run.fail(0, "a pity")
    assert cells(printed(run))[-2][5:7] == ["0", "1"]


def test_divergence_is_a_column_only_where_it_happened() -> None:
    """It counts the values that are not finite."""
    run = trained([0.1, 0.2])
    assert "diverged" not in printed(run)
    reporter(run, 1)(math.nan)
    text = printed(run)
    assert cells(text)[-2][-1] == "0"
    row = cells(text)[-1]
    assert (row[2], row[4], row[-1]) == ("nan", "diverged", "1")


@pytest.mark.parametrize("members", [1, 2, 8, 30])
@pytest.mark.parametrize("hyperparameters", [1, 6, 20])
def test_nothing_is_cut_at_eighty_columns(members: int, hyperparameters: int) -> None:
    """Each value is there once, on lines that fit."""
    names = [f"hyperparameter_{i}" for i in range(hyperparameters)]
    metas = [
        {name: 100 * worker_id + i + 0.5 for i, name in enumerate(names)}
        for worker_id in range(members)
    ]
    text = printed(trained(metas, steps=1), width=80, title="A run")
    lines = text.splitlines()
    assert lines[0] == "A run"
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    shown = [cell for row in cells(text) for cell in row]
    wanted = {f"{value:.3g}" for meta in metas for value in meta.values()}
    assert wanted <= {*shown}
    assert {f"{name}" for name in names} <= {*shown}
    assert shown.count("training") == members


def test_rows_that_do_not_fit_are_turned_round() -> None:
    """A column for each member, and a row for each quantity."""
    run = trained([{f"h{i}": i / 8 for i in range(10)} | {"beta2": 0.9999}] * 3)
    rows = cells(printed(run, width=80))
    assert rows[0] == ["worker", "0", "1", "2"]
    assert ["steps", "2", "2", "2"] in rows
    assert ["h9", "1.12", "1.12", "1.12"] in rows
    assert ["beta2", "0.9999", "0.9999", "0.9999"] in rows
    assert ["wall time", "20 s", "40 s", "60 s"] in rows
    assert cells(printed(run))[1][:3] == ["worker", "steps", "value"]


def test_a_cell_that_is_wider_than_the_console_is_whole() -> None:
    """A terminal wraps it; a file holds it."""
    run = trained([{"text": "x" * 100, "lr": 0.1}])
    assert "x" * 100 in printed(run, width=80)


def test_times_are_in_a_fitting_unit() -> None:
    """Seconds, minutes or hours, with three digits."""
    clock = Clock()
    run = PopulationController([0.1], Scripted(), clock=clock)
    for seconds, shown in ((1.23456, "1.23 s"), (599.0, "10 min"), (9e4, "25.2 h")):
        clock.advance(seconds)
        reporter(run)(1.0)
        assert shown in cells(printed(run))[-1]


def test_a_piped_table_is_whole(tmp_path: pathlib.Path) -> None:
    """A file or pipe has no width of its own."""
    PopulationController(
        [{f"hyperparameter_{i}": 0.25 for i in range(20)}] * 8, Scripted(), tmp_path
    ).close()
    code = (
        "import sys\n"
        "from population import PopulationController\n"
        "from population.report import table\n"
        "from tests.helpers import Scripted\n"
        "run = PopulationController([None] * 8, Scripted(), sys.argv[1])\n"
        "table.print_workers(run)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    shown = [cell for row in cells(done.stdout) for cell in row]
    assert {f"hyperparameter_{i}" for i in range(20)} <= {*shown}
    assert shown.count("training") == 8
    assert shown.count("0.25") == 160


def test_a_copied_member_counts_only_what_it_has_trained() -> None:
    """Its steps are those of its weights, its steps trained its own."""

    def decide(report: Report, view: PopulationView) -> dict[int, Branch]:
        if (report.worker_id, report.checkpoint.step) != (0, 1):
            return {}
        return {0: Branch(view.newest(1), 0.9)}

    run = PopulationController([0.1, 0.2], Scripted(decide))
    for _ in range(5):
        reporter(run, 1)(1.0)
    reporter(run, 0)(1.0)
    reporter(run, 0)(0.5)
    rows = cells(printed(run))
    assert (rows[-2][:4], rows[-2][-1]) == (["0", "6", "0.5", "0.9"], "2")
    assert (rows[-1][:4], rows[-1][-1]) == (["1", "5", "1", "0.2"], "5")
