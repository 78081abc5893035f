"""A run can be read as it lies on the disk, and is left as it is."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import population
from population import (
    Branch,
    JournalError,
    ParamsError,
    PopulationController,
    Stop,
)
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.mutators import PopulationBasedTraining
from population.params import FileParams
from population.reader.columns import RunColumns
from population.reader.windows import best_window
from population.space import LogUniform, Perturb
from tests.helpers import Clock, Scripted, missing
from tests.test_read_only import protect, public  # noqa: F401

SPACE = {"lr": LogUniform(1e-3, 1.0), "layers": 3}
LOOK = """
import os, sys
import population, population.params, population.space
if os.getuid() == 0:  # Whom no mode of a file binds.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
run = population.read(sys.argv[1])
print(run.status.step, run.best().value, run.checkpoints().rows, run.workers().rows)
print(run.load(run.best())["w"].tolist(), run.schedule(run.best()), run.space)
"""


def trained(folder: pathlib.Path | None, steps: int = 20, **options: Any) -> Any:
    """A controller of four members that have trained."""
    run = PopulationController.from_space(
        SPACE,
        4,
        PopulationBasedTraining(Perturb(SPACE), 5),
        folder,
        stop=Stop(steps=20),
        clock=Clock(),
        **options,
    )
    for step in range(1, steps + 1):
        for worker_id, slot in enumerate(run.workers):
            weights = {"w": np.full(2, step)}
            place = worker_id, slot.generation_id, slot.step + 1
            run.set_eval(*place, weights, (worker_id + 1) / step)
    return run


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """All files of a folder and their content."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in found}


def test_a_finished_run_tells_all_that_its_controller_tells(
    tmp_path: pathlib.Path,
) -> None:
    """The best, its lineage, schedule and params, and the space."""
    with contextlib.closing(trained(tmp_path / "run")) as open_run:
        best = open_run.best()
        told = (
            best,
            open_run.lineage(best),
            dict(open_run.schedule(best)),
            open_run.space,
            list(open_run.history()),
        )
        weights = open_run.load(best)
    run = population.read(tmp_path / "run")
    found = run.best()
    assert found is not None
    again = found, run.lineage(found), dict(run.schedule(found)), run.space, list(run)
    assert again == told
    np.testing.assert_array_equal(run.load(found)["w"], weights["w"])
    assert run.saves().rows > 0
    assert {*run.saves()["path"]} == {
        str(file.relative_to(tmp_path / "run/params"))
        for file in (tmp_path / "run/params").rglob("*.safetensors")
    }


def test_nothing_is_written_or_held(tmp_path: pathlib.Path) -> None:
    """Every byte stays, no file is added, and the run can be moved between calls."""
    trained(tmp_path / "run").close()
    before = files(tmp_path / "run")
    run = population.read(tmp_path / "run")
    _ = run.status, run.space, run.workers(), run.branches(), run.best(3), list(run)
    run.checkpoints().to_pandas()
    assert files(tmp_path / "run") == before
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(JournalError, match="must be the log_dir of a run"):
        run.best()


def test_a_run_that_trains_is_read_as_it_is_then(tmp_path: pathlib.Path) -> None:
    """Call by call, and the journal of the process that trains is not held."""
    with contextlib.closing(trained(tmp_path / "run", steps=10)) as training:
        run = population.read(tmp_path / "run")
        assert run.status.is_open
        assert not run.status.finished
        assert run.status.step == 10
        rows = run.checkpoints().rows
        pages = iter(run)
        first = next(pages)
        for worker_id, slot in enumerate(training.workers):
            training.set_eval(worker_id, slot.generation_id, 11, None, 0.01)
        assert run.checkpoints().rows == rows + 4
        assert [first, *pages] == list(run)[:rows]  # As it was when this began.
    assert not run.status.is_open


@pytest.mark.parametrize("ends", ["closed", "killed"])
def test_another_users_run_on_read_only_media(
    public: pathlib.Path,  # noqa: F811
    ends: str,
) -> None:
    """Also one with a log that SQLite cannot read without a file beside it."""
    run = trained(public / "run")
    if ends == "closed":
        run.close()
    else:
        import shutil

        shutil.copytree(public / "run", public / "copy")
        (public / "copy" / f"{JOURNAL_NAME}-shm").unlink(missing_ok=True)
        run.close()
        shutil.rmtree(public / "run")
        (public / "copy").rename(public / "run")
    protect(public / "run")
    before = files(public / "run")
    found = subprocess.run(
        [sys.executable, "-c", LOOK, str(public / "run")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not found.returncode, found.stderr
    assert found.stdout.startswith("20 0.05 ")
    assert files(public / "run") == before


def test_a_folder_without_a_run_is_refused(tmp_path: pathlib.Path) -> None:
    """With what is needed; nothing is made there."""
    for place in (tmp_path, tmp_path / "missing", tmp_path / "missing/deeper"):
        with pytest.raises(JournalError, match="must be the log_dir of a run"):
            population.read(place)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="log_dir must be the path of a folder"):
        population.read(3)  # type: ignore[arg-type]
    (tmp_path / JOURNAL_NAME).write_bytes(b"something else, and long enough" * 9)
    with pytest.raises(JournalError, match="is not a journal of this library"):
        population.read(tmp_path)


def test_params_in_another_store_are_asked_for(tmp_path: pathlib.Path) -> None:
    """And read from it, when it is passed."""
    store = FileParams(tmp_path / "elsewhere")
    trained(tmp_path / "run", params=store).close()
    run = population.read(tmp_path / "run")
    best = run.best()
    assert best is not None
    with pytest.raises(ParamsError, match=r"population.read\(log_dir, params=...\)"):
        run.load(best)
    run = population.read(tmp_path / "run", params=FileParams(tmp_path / "elsewhere"))
    assert run.load(best)["w"].tolist() == [20.0, 20.0]


def test_what_has_no_params_says_why(tmp_path: pathlib.Path) -> None:
    """In the words of the controller."""
    trained(tmp_path / "run").close()
    run = population.read(tmp_path / "run")
    early = next(c for c in run if c.step == 3)
    with pytest.raises(ParamsError, match="as nothing could need them any more"):
        run.load(early)
    with pytest.raises(ParamsError, match="begins with fresh weights"):
        run.load(next(iter(run)))
    with pytest.raises(TypeError, match="load needs a checkpoint, got NoneType"):
        run.load(None)  # type: ignore[arg-type]
    assert run.resume_point(early).step in (0, 3)


def test_the_best_of_several_values_in_a_row() -> None:
    """The mean counts, along a lineage: through branches, past what has no value."""
    run = PopulationController(
        [{"x": 1.0}, {"x": 2.0}],
        Scripted(
            lambda report, view: (
                {1: Branch(view.newest(0), {"x": 3.0})}
                if report.checkpoint.step == 3
                else {}
            )
        ),
    )
    name, other = (worker.generation_id for worker in run.workers)
    for step, value in ((1, 4.0), (2, 4.0)):
        run.set_eval(0, name, step, None, value)
        run.set_eval(1, other, step, None, 5.0 if step == 1 else 0.5)
    run.set_eval(0, name, 3, None, 4.0)  # Branches worker 1 from here.
    branched = run.workers[1].generation_id
    run.set_eval(1, branched, 4, None, None)
    run.set_eval(1, branched, 5, None, 1.0)
    history = run.history()
    best = history.best()
    assert best is not None
    assert (best.worker_id, best.value) == (1, 0.5)
    best = history.best(2)
    assert best is not None
    assert best.ref == (branched, 5)  # Mean 2.5, not 2.75.
    best = history.best(4)
    assert best is not None
    assert best.ref == (branched, 5)  # (4 + 4 + 4 + 1) / 4.
    assert history.best(5) is None
    run.set_eval(1, branched, 6, None, math.nan)
    run.set_eval(1, run.workers[1].generation_id, 7, None, -100.0)
    found = history.best(2)
    assert found is not None
    assert not math.isnan(found.value or 0.0)
    for wrong in (0, True, 2.5):
        with pytest.raises((TypeError, ValueError), match="window must be"):
            history.best(wrong)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: pathlib.Path) -> None:
    """The journal is not damaged: who compares runs has mixed them up."""
    for name in ("one", "other"):
        with contextlib.closing(
            PopulationController([{}], Scripted(), tmp_path / name)
        ) as run:
            run.set_eval(0, run.workers[0].generation_id, 1, None, 1.0)
    best = population.read(tmp_path / "other").best()
    assert best is not None
    read = population.read(tmp_path / "one")
    for call in (read.lineage, read.schedule, read.resume_point):
        with pytest.raises(ValueError, match="needs a checkpoint of this run"):
            call(best)


def test_a_run_that_is_being_created_is_not_damaged(tmp_path: pathlib.Path) -> None:
    """Its journal has tables before it has the run."""
    SqliteJournal(tmp_path / JOURNAL_NAME).close()
    with pytest.raises(JournalError, match="holds no run yet"):
        population.read(tmp_path)


def test_the_name_of_a_folder_may_be_no_text(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a folder from a machine with another encoding."""
    folder = tmp_path / os.fsdecode(b"gr\xf6sse")
    try:
        folder.mkdir()
    except OSError:
        missing("a file system whose names may be any bytes")
    with contextlib.closing(PopulationController([{}], Scripted(), folder)) as run:
        for step in range(1, 2000):
            run.set_eval(0, run.workers[0].generation_id, step, None, 1.0)
        assert population.read(folder).status.reports == 1999
    assert population.read(folder).status.reports == 1999
    assert not caplog.records


def test_a_window_skips_checkpoints_without_a_value() -> None:
    """However many there are in a row, in any tree of checkpoints."""
    rng = np.random.default_rng(0)
    for rows in (1, 5, 40):
        for _ in range(30):
            parent = np.array([int(rng.integers(-1, row)) for row in range(rows)])
            parent = np.where(rng.random(rows) < 0.7, np.arange(rows) - 1, parent)
            has, value = rng.random(rows) < 0.3, rng.normal(size=rows)
            arrays = {"has_value": has, "value": value, "parent": parent}
            means: dict[int, float] = {}
            for end in np.flatnonzero(has).tolist():
                found: list[float] = []
                place = end
                while place >= 0 and len(found) < 3:
                    found += [float(value[place])] if has[place] else []
                    place = int(parent[place])
                if len(found) == 3:
                    means[end] = sum(found)
            best = min(means, key=lambda end: means[end]) if means else None
            assert best_window(RunColumns(rows, arrays), 3, 1.0) == best


def test_a_larger_value_is_better_in_its_mode() -> None:
    """Also over a window."""
    run = PopulationController([{"x": 1.0}] * 2, Scripted(), mode="max")
    for worker_id, worker in enumerate(run.workers):
        for step in (1, 2):
            run.set_eval(worker_id, worker.generation_id, step, None, worker_id * step)
    best = run.history().best(2)
    assert best is not None
    assert (best.worker_id, best.step) == (1, 2)


def test_the_status_says_how_far_a_run_is(tmp_path: pathlib.Path) -> None:
    """Its limits, its numbers, and why it has ended."""
    clock = Clock()
    options: dict[str, Any] = {"mode": "max", "seed": 3, "clock": clock}
    start = [{"x": 1.0}, {"x": 2.0}]
    run = PopulationController(
        start, Scripted(), tmp_path, stop=Stop(reports=3, value=9.0), **options
    )
    read = population.read(tmp_path)
    now = read.status
    assert (now.size, now.mode, now.seed) == (2, "max", 3)
    assert now.mutator.endswith("Scripted")
    assert now.stop == Stop(reports=3, value=9.0)
    assert (now.checkpoints, now.generations, now.reports) == (2, 2, 0)
    assert (now.best, now.finished, now.reason) == (None, False, "")
    assert now.environment["python"]
    assert now.environment["numpy"] == np.__version__
    clock.advance(7)
    for value in (2.0, 1.0, 0.5):
        slot = run.workers[0]
        run.set_eval(0, slot.generation_id, slot.step + 1, None, value)
    now = read.status
    assert (now.best, now.step, now.reports) == (2.0, 3, 3)
    assert now.finished
    assert now.reason == "3 values were reported"
    assert now.newest - now.began == now.open_s == 7
    run.close()
    # Another limit is that of the newest session.
    run = PopulationController(start, Scripted(), tmp_path, **options)
    now = read.status
    assert (now.stop, now.finished, now.openings) == (Stop(), False, 2)
    run.fail(1, "no memory")
    assert read.status.warnings == ("worker 1 has failed once: no memory",)
    run.close()
    assert "no process that is known to be alive" in read.status.warnings[-1]


def test_equal_sessions_are_recorded_once(tmp_path: pathlib.Path) -> None:
    """Ten restarts of one script leave one fact."""
    for _ in range(3):
        PopulationController([{"x": 1.0}], Scripted(), tmp_path).close()
    with contextlib.closing(PopulationController([{}], Scripted(), tmp_path)) as run:
        keys = [
            fact.key
            for fact in run.open_run.journal.all(population.journal.records.Fact)
        ]
    assert keys.count("session 1") == 1
    assert "session 2" not in keys


def test_readers_do_not_disturb_a_thread_that_reports(tmp_path: pathlib.Path) -> None:
    """Hundreds of reads beside hundreds of reports, each of one moment."""
    run = PopulationController([{"x": 1.0}], Scripted(), tmp_path)
    stop = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        read = population.read(tmp_path)
        while not stop.is_set():
            columns = read.checkpoints()
            if columns["step"].tolist() != list(range(columns.rows)):
                wrong.append(columns["step"])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for step in range(1, 300):
            slot = run.workers[0]
            run.set_eval(0, slot.generation_id, step, None, 1.0)
    finally:
        stop.set()
        thread.join()
        run.close()
    assert not wrong
    assert population.read(tmp_path).checkpoints().rows == 300
