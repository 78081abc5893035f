"""Each command does what its help says, on runs as they lie on the disk."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import io
import json
import math
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import population
from population import PopulationController, Schedule, Stop
from population.cli import main as command_line
from population.cli import show, watch
from population.mutators import PopulationBasedTraining
from population.space import LogUniform, Perturb
from tests.helpers import Clock, Scripted

SPACE = {"lr": LogUniform(1e-3, 1.0), "deep": {"<b>\x1b[31m": LogUniform(1.0, 2.0)}}
Run = Callable[..., tuple[int, str, str]]


def policy() -> PopulationBasedTraining:
    """The mutator of the runs."""
    return PopulationBasedTraining(Perturb(SPACE), 5)


def opened(folder: pathlib.Path, steps: int = 20) -> PopulationController:
    """A run of eight members."""
    return PopulationController.from_space(
        SPACE, 8, policy(), folder, stop=Stop(steps=steps), clock=Clock()
    )


def train(run: PopulationController, steps: int) -> None:
    """Report so many steps of each member."""
    for step in range(1, steps + 1):
        for worker_id, slot in enumerate(run.workers):
            value = math.nan if (worker_id, step) == (7, 3) else (worker_id + 1) / step
            weights = {"w": np.full(2, step)}
            place = worker_id, slot.generation_id, slot.step + 1
            run.set_eval(*place, weights, value, {"loss": 0.5, "note": "=1+1,\n"})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("template") / "run"
    run = opened(folder)
    train(run, 26)  # Who was set back reaches its end, too.
    run.close()
    return folder


@pytest.fixture
def run(template: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the finished run."""
    return pathlib.Path(shutil.copytree(template, tmp_path / "a run"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = command_line.main([str(argument) for argument in arguments])
        except SystemExit as error:  # Of argparse.
            code = int(error.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_the_program_runs_as_a_module(run: pathlib.Path) -> None:
    """In a process of its own, without JAX, matplotlib or rich."""
    code = (
        "import sys; from population.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'jax', 'matplotlib', 'rich', 'pandas', 'jinja2'} & {*sys.modules};"
        "print('heavy', heavy); sys.exit(code)"
    )
    for way in (["-m", "population"], ["-c", code]):
        done = subprocess.run(
            [sys.executable, *way, "show", str(run)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "8 members, mode min" in done.stdout
    assert "heavy set()" in done.stdout


def test_show_tells_status_best_and_members(run: pathlib.Path, call: Run) -> None:
    """A line a member; what a terminal would act on is escaped."""
    code, out, _ = call("show", run)
    assert code == 0
    assert "finished: all members have reached step 20" in out
    assert "best 0.0" in out
    assert len([line for line in out.splitlines() if "at its end" in line]) == 8
    assert "\x1b" not in out
    assert "deep/<b>\\x1b[31m" in out


def test_show_as_json_is_strict(run: pathlib.Path, call: Run) -> None:
    """NaN is null; the members have all that the columns have."""
    code, out, _ = call("show", run, "--json")
    told = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == 0
    assert told["finished"] is True
    assert told["stop"]["steps"] == 20
    assert told["best"]["value"] == population.read(run).best().value  # type: ignore[union-attr]
    assert [member["worker_id"] for member in told["members"]] == list(range(8))


def test_whether_a_run_has_finished_is_an_exit_code(
    run: pathlib.Path, tmp_path: pathlib.Path, call: Run
) -> None:
    """For scripts: 0 if so, else 1."""
    code, out, _ = call("show", run, "--finished")
    assert code == 0
    assert out.startswith("finished: ")
    opened(tmp_path / "new").close()
    assert call("show", tmp_path / "new", "--finished")[:2] == (1, "not finished\n")
    code, out, _ = call("show", tmp_path / "new", "--finished", "--json")
    assert (code, json.loads(out)["finished"]) == (1, False)


def test_many_members_are_the_best_forty(tmp_path: pathlib.Path, call: Run) -> None:
    """And it says how many are left out."""
    run = PopulationController([{"x": 0.5}] * 100, Scripted(), tmp_path / "run")
    for worker_id, slot in enumerate(run.workers):
        run.set_eval(worker_id, slot.generation_id, 1, None, float(100 - worker_id))
    run.close()
    out = call("show", tmp_path / "run")[1]
    assert "... and 60 more members" in out
    assert "\n    99" in out
    assert "\n     3" not in out
    assert "\n     3" in call("show", tmp_path / "run", "--all")[1]


def test_many_warnings_are_counted(run: pathlib.Path) -> None:
    """A thousand members that fail do not hide the run."""
    read = population.read(run)
    status = read.status._replace(warnings=("it failed",) * 1000)
    assert [*show.lines(read, status, None)][-11:] == ["warning: it failed"] * 10 + [
        "... and 990 more warnings; --json shows them"
    ]


def test_export_has_every_checkpoint(run: pathlib.Path, call: Run) -> None:
    """As CSV that a spreadsheet reads, and as JSON."""
    columns = population.read(run).checkpoints()
    code, out, _ = call("export", run)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == columns.rows
    assert [int(row["step"]) for row in rows] == columns["step"].tolist()
    assert {row["metrics.note"] for row in rows} == {"", "=1+1,\n"}
    values = [float(row["value"] or "nan") for row in rows]
    np.testing.assert_array_equal(values, columns["value"])
    code, out, _ = call("export", run, "--json")
    assert len(json.loads(out)) == columns.rows
    code, out, _ = call("export", run, "--csv", run / "b.csv", "--table", "branches")
    assert code == 0
    assert f"{population.read(run).branches().rows} rows" in out
    assert (run / "b.csv").read_text().startswith("row,generation_id")


def test_a_schedule_is_written_for_the_best_or_another(
    run: pathlib.Path, call: Run
) -> None:
    """It is what `Schedule.from_json` reads."""
    read = population.read(run)
    best = read.best()
    assert best is not None
    code, out, _ = call("schedule", run)
    assert code == 0
    assert dict(Schedule.from_json(out)) == dict(read.schedule(best))
    other = next(c for c in read if c.worker_id == 7 and c.step == 2)
    name = f"{other.generation_id}:{other.step}"
    code, out, _ = call("schedule", run, "--checkpoint", name, "-o", run / "s.json")
    assert code == 0
    text = (run / "s.json").read_text()
    assert dict(Schedule.from_json(text)) == dict(read.schedule(other))
    told = json.loads(call("schedule", run, "--json", "-o", run / "s.json")[1])
    assert (told["file"], told["step"]) == (str(run / "s.json"), best.step)
    assert call("schedule", run, "--window", 1000)[0] == 1
    for wrong in ("x", "x:1", ":", f"{other.generation_id}:999"):
        code, _, err = call("schedule", run, "--checkpoint", wrong)
        assert code == 2
        assert err.count("\n") == 1


def test_verify_finds_what_is_wrong(run: pathlib.Path, call: Run) -> None:
    """A missing save, a flipped bit, another policy, a damaged row."""
    name = "tests.cli.test_commands:policy"
    code, out, _ = call("verify", run, "--mutator", name)
    assert code == 0
    assert "all is well" in out
    assert "decisions were derived again" in out
    save = next((run / "params").rglob("*.safetensors"))
    content = save.read_bytes()
    save.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, out, _ = call("verify", run)
    assert code == 1
    assert f"problem: the save {save.relative_to(run / 'params')} is missing" in out
    save.unlink()
    code, out, _ = call("verify", run, "--json")
    assert (code, len(json.loads(out)["problems"])) == (1, 1)
    save.write_bytes(content)
    code, out, _ = call("verify", run, "--mutator", "tests.cli.test_commands:other")
    assert code == 1
    assert "a decision differs" in out
    assert (
        "note: the mutator given has other arguments: steps_per_exploit: 5 -> 3" in out
    )
    with sqlite3.connect(run / "journal.sqlite") as db:
        db.execute("UPDATE checkpoints SET value = 'x' WHERE row = 20")
    db.close()
    code, out, _ = call("verify", run)
    assert code == 1
    assert "problem: " in out


def other() -> PopulationBasedTraining:
    """A mutator that would have decided otherwise."""
    return PopulationBasedTraining(Perturb(SPACE), 3)


@pytest.mark.parametrize("which", ["a session", "a child process of an engine"])
def test_gc_removes_what_killed_processes_have_left(
    which: str, run: pathlib.Path, call: Run
) -> None:
    """Only that; it can be tried without doing it."""
    read = population.read(run)
    owner = _session(run, is_child=which != "a session")
    left = run / "params" / f"{read.workers()['generation_id'][0]}"
    left.mkdir(exist_ok=True)
    orphan = left / f"99-{owner}-00000000.safetensors"
    orphan.write_bytes(b"never reported")
    kept = {*(run / "params").rglob("*.safetensors")} - {orphan}
    code, out, _ = call("gc", run, "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "1 saves would be removed")
    assert orphan.exists()
    assert json.loads(call("gc", run, "--json")[1])["removed"]
    assert {*(run / "params").rglob("*.safetensors")} == kept
    assert call("gc", run)[1] == "0 saves removed\n"
    assert call("verify", run)[0] == 0


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_run_of_an_older_version_is_read_and_left_as_it_is(
    number: int, tmp_path: pathlib.Path, call: Run
) -> None:
    """Only a command that writes to the journal upgrades it."""
    folder = tmp_path / "run"
    shutil.copytree(pathlib.Path(__file__).parents[1] / f"data/format-{number}", folder)
    before = (folder / "journal.sqlite").read_bytes()
    for command in ("show", "verify", "schedule", "gc --dry-run", "list"):
        assert call(*command.split(), folder)[0] == 0, command
    for table in ("checkpoints", "branches", "workers", "saves"):
        assert call("export", folder, "--table", table)[0] == 0, table
    assert (folder / "journal.sqlite").read_bytes() == before
    assert call("stop", folder)[1].startswith("no process has the run open")
    assert call("show", folder, "--finished")[:2] == (1, "not finished\n")


def _session(run: pathlib.Path, is_child: bool) -> str:
    """The token of a dead session; the engine gives its children longer ones."""
    db = sqlite3.connect(run / "journal.sqlite")
    ((text,),) = db.execute("SELECT owner FROM sessions")
    *process, token = json.loads(text)
    if is_child:
        token = f"0123abcd{token}"
        row = "SELECT row, time, ? FROM sessions"
        db.execute(f"INSERT INTO sessions {row}", (json.dumps([*process, token]),))
        db.commit()
    db.close()
    return str(token)


def test_list_finds_runs_and_says_which_cannot_be_read(
    run: pathlib.Path, tmp_path: pathlib.Path, call: Run
) -> None:
    """One broken run does not hide the others."""
    opened(tmp_path / "deep/er/new").close()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/journal.sqlite").write_bytes(b"x" * 200)
    code, out, _ = call("list", tmp_path)
    assert code == 0
    assert out.count("finished") == 1
    assert "unreadable" in out
    assert "warning: " in out
    told = json.loads(call("list", tmp_path, "--json")[1])
    assert [pathlib.Path(line["log_dir"]).name for line in told] == [
        "a run",
        "broken",
        "new",
    ]
    (tmp_path / "empty").mkdir()
    assert "no run in" in call("list", tmp_path / "empty")[1]


def test_watch_ends_when_the_run_has(tmp_path: pathlib.Path, call: Run) -> None:
    """It prints a line for each change, and none without."""
    folder = tmp_path / "run"
    run = opened(folder, steps=3)
    looks: list[float] = []
    told: list[int] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) % 2:
            train(run, 1)

    read = population.read(folder)
    code = watch.follow(read, 7.0, lambda found: told.append(found.status.step), wait)
    run.close()
    assert (code, told) == (0, [0, 1, 2, 3])
    assert set(looks) == {7.0}
    assert call("watch", folder)[1].endswith(
        "finished: all members have reached step 3\n"
    )
    lines = call("watch", folder, "--json")[1].splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3]


@pytest.mark.parametrize("height", [5, 10, 24, 60])
def test_watch_fits_on_the_screen(
    height: int,
    run: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else the terminal scrolls, and what matters most is above its edge."""
    monkeypatch.setenv("LINES", str(height))
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert command_line.main(["watch", str(run)]) == 0
    out = capsys.readouterr().out.removeprefix("\x1b[H\x1b[J")
    lines = out.split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= 50
    assert lines[0].startswith(str(run)[:50])
    assert out.count("at its end") == {5: 0, 10: 1, 24: 8, 60: 8}[height]


def test_watch_says_that_no_process_has_the_run_open(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a killed run seems to go on for ever."""
    run = opened(tmp_path)
    watch.line(population.read(tmp_path))
    assert "not open" not in capsys.readouterr().out
    run.close()
    watch.line(population.read(tmp_path))
    assert capsys.readouterr().out.endswith("; not open\n")


@pytest.mark.parametrize("command", ["show", "export", "schedule", "verify", "watch"])
def test_what_is_no_run_is_one_line(
    command: str, tmp_path: pathlib.Path, call: Run
) -> None:
    """On standard error, with an exit code of its own; nothing is made."""
    code, out, err = call(command, tmp_path / "nothing")
    assert (code, out) == (3, "")
    assert err.startswith("population: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "nothing").exists()


def test_wrong_arguments_are_told(run: pathlib.Path, call: Run) -> None:
    """With exit code 2."""
    for arguments in (
        ("unknown",),
        (),
        ("show",),
        ("show", run, "--finish"),
        ("export", run, "--csv", "a", "--json", "b"),
        ("list", run / "journal.sqlite"),
        ("verify", run, "--mutator", "policy"),
        ("verify", run, "--mutator", "no.such:policy"),
        ("verify", run, "--mutator", "json:dumps"),
        ("schedule", run, "--window", "0"),
        ("schedule", run, "--window", "3", "--checkpoint", "x:1"),
        ("schedule", run, "--checkpoint", f"x:{10**30}"),
        ("watch", run, "--every", "nan"),
        ("watch", run, "--every", "inf"),
        ("watch", run, "--every", "-1"),
        ("watch", run, "--every", "soon"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err
    code, _, err = call("schedule", run, "-o", run / "no/such/folder.json")
    assert code == 3
    assert "cannot be written" in err


def test_a_reader_that_has_enough_is_no_error(run: pathlib.Path) -> None:
    """As in `population export RUN | head -1`."""
    done = subprocess.run(
        f"{sys.executable} -m population export '{run}' --table checkpoints | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.stdout.startswith("row,")
    assert done.stderr == ""


def test_texts_that_the_terminal_cannot_show_are_escaped(
    tmp_path: pathlib.Path,
) -> None:
    """A locale without Unicode changes neither the exit code nor the files."""
    with contextlib.closing(
        PopulationController([{"größe": 1.0}], Scripted(), tmp_path)
    ):
        pass
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for command in ("show", "export --csv table.csv", "report -o page.html"):
        done = subprocess.run(
            [sys.executable, "-m", "population", *command.split(), str(tmp_path)],
            capture_output=True,
            cwd=tmp_path,
            timeout=60,
            env={**os.environ, **ascii_only, "PYTHONPATH": os.getcwd()},
        )
        assert (done.returncode, done.stderr) == (0, b""), command
        if command == "show":
            assert b"gr\\xf6\\xdfe" in done.stdout
    table = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert "meta_params.größe" in table.splitlines()[0]


@pytest.mark.parametrize("command", ["schedule", "report"])
def test_a_pipe_stays_a_pipe_and_a_link_a_link(
    command: str, run: pathlib.Path, tmp_path: pathlib.Path, call: Run
) -> None:
    """A file in the place of `/dev/null` would break the machine."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        received = pool.submit(pipe.read_bytes)
        if call(command, run, "-o", pipe)[0] or not pipe.is_fifo():
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # Ends the reader.
        assert pipe.is_fifo()
        assert received.result(20)
    link.symlink_to(file)
    file.write_text("old")
    assert call(command, run, "-o", link)[0] == 0
    assert link.is_symlink()
    assert file.read_bytes() == received.result()


def test_a_closed_standard_output_is_no_error(run: pathlib.Path) -> None:
    """As a daemon has it."""
    done = subprocess.run(
        f"{sys.executable} -m population show '{run}' --finished >&-",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_in_the_module_of_a_mutator_is_a_line(
    run: pathlib.Path,
    tmp_path: pathlib.Path,
    call: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 1 would say that something is wrong in the run."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_on_import.py").write_text("raise RuntimeError('no data')")
    (tmp_path / "broken_on_call.py").write_text("def make():\n    {}[0] + 1")
    for name in ("broken_on_import:make", "broken_on_call:make"):
        code, out, err = call("verify", run, "--mutator", name)
        assert (code, out) == (2, "")
        assert err.startswith(f"population: --mutator {name}: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_all_commands(shell: str, call: Run) -> None:
    """And their options; bash itself completes with it."""
    code, out, _ = call("completion", shell)
    assert code == 0
    for command in command_line.COMMANDS:
        assert command.NAME in out
    if shell == "bash" and shutil.which("bash"):
        ask = (
            "COMP_WORDS=(population show --f) COMP_CWORD=2;"
            " _population; echo $COMPREPLY"
        )
        done = subprocess.run(
            ["bash", "-c", f"{out}\n{ask}"], capture_output=True, text=True, timeout=20
        )
        assert done.stdout.strip() == "--finished"


def test_a_missing_package_says_what_to_install(
    run: pathlib.Path, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit code 4."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    code, _, err = call("export", run, "--parquet", run / "x")
    assert code == 4
    assert "pip install" in err
