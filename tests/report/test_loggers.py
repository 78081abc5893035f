"""Loggers: what they write can be read, by TensorBoard and pandas too."""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib
import io
import json
import math
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from population import Checkpoint, Event, PopulationController, Ref, Stop
from population.report import loggers
from population.report.loggers import line_file
from tests.helpers import Clock, Scripted, branch_at, missing, reporter

META = {"lr": 0.1, "deep": {"on": True, "how": 'a, "b"'}}


def needed(module: str) -> Any:
    """A module that the extra `test` installs."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(module.partition(".")[0])


def checkpoint(row: int = 7, value: float | None = 0.5, **changes: Any) -> Checkpoint:
    """A checkpoint of a run."""
    found = Checkpoint("p", META, "r-3-0", value, None, 20, 99.0, 3, row=row)
    return found._replace(**changes)


def report(row: int = 7, value: float | None = 0.5, **changes: Any) -> Event:
    """The event of a report."""
    return Event("report", 3, checkpoint(row, value, **changes))


def trained(
    on_event: Callable[[Event], object], log_dir: pathlib.Path | None = None
) -> PopulationController:
    """A run of two members with a branch, a divergence and a retirement."""
    decide = branch_at(3, {"lr": 0.9, "how": "x"}, back_to=1)
    metas = [{"lr": 0.1, "how": "x"}, {"lr": 0.2, "how": "y\n"}]
    run = PopulationController(
        metas, Scripted(decide), log_dir, stop=Stop(steps=5), on_event=on_event
    )
    for value in (1.0, math.nan, 0.5, 0.25):
        reporter(run)(value)
    for _ in range(3):
        run.fail(1, 'a, "pity"\nindeed')
    return run


# CSV


def rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_of_csv_is_an_event(tmp_path: pathlib.Path, clock: Clock) -> None:
    """Trees are JSON by name, and texts are quoted; an event is one line."""
    path = tmp_path / "new" / "events.csv"
    with loggers.csv(path, ["meta_params/lr", "metrics/no"], clock=clock) as log:
        log(report(metrics={"loss": [1, math.inf], "text": "ü\n\0"}))
        clock.advance(1)
        log(report(8, None, meta_params=3, metrics=False))
        log(Event("failed", 3, checkpoint(9, math.nan), 'no,\n"why"\r\0 \udc80'))
        log(Event("branch", 3, checkpoint(10, reason="copied")))
        log(Event("finished", -1, None))
    log(report(11))  # Too late.
    assert len(path.read_text().splitlines()) == 6
    one, two, three, four, five = rows(path)
    assert one == {
        "time": "1000.0",
        "event": "report",
        "worker_id": "3",
        "row": "7",
        "generation_id": "r-3-0",
        "step": "20",
        "value": "0.5",
        "reason": "",
        "meta_params": '{"lr": 0.1, "deep/on": true, "deep/how": "a, \\"b\\""}',
        "metrics": '{"loss/0": 1, "loss/1": null, "text": "\\u00fc\\n\\u0000"}',
        "meta_params/lr": "0.1",
        "metrics/no": "",
    }
    assert (two["time"], two["value"]) == ("1001.0", "")
    assert (two["meta_params"], two["metrics"]) == ("3", "false")
    assert (three["value"], three["reason"]) == ("nan", 'no, "why"   \\udc80')
    assert (four["event"], four["reason"]) == ("branch", "copied")
    assert (five["event"], five["worker_id"], five["row"]) == ("finished", "-1", "")


def test_pandas_reads_the_csv_of_a_run(tmp_path: pathlib.Path) -> None:
    """Numbers are numbers, and the trees become columns."""
    pandas = needed("pandas")
    path = tmp_path / "events.csv"
    with loggers.csv(path) as log:
        trained(log)
    table = pandas.read_csv(path)
    kinds = table["event"].tolist()
    assert kinds.count("report") == 4
    assert kinds.count("branch") == 1
    assert kinds.count("failed") == 3
    assert kinds.count("retired") == 1
    values = table[table["event"] == "report"]["value"].tolist()
    assert [value for value in values if value == value] == [1.0, 0.5, 0.25]
    trees = pandas.DataFrame([*map(json.loads, table["meta_params"])])
    assert set(trees["lr"]) == {0.1, 0.2, 0.9}
    assert "y\n" in set(trees["how"])
    assert str(table["step"].dtype) == "int64"


def test_a_resumed_run_goes_on_in_the_same_csv(tmp_path: pathlib.Path) -> None:
    """With one header, and no event a second time."""
    path = tmp_path / "events.csv"
    for _ in range(2):
        with loggers.csv(path) as log:
            run = PopulationController(
                [META], Scripted(), tmp_path / "run", on_event=log
            )
            reporter(run)(1.0)
            reporter(run)(2.0)
            run.close()
    found = [row for row in rows(path) if row["event"] == "report"]
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    assert path.read_text().count("generation_id") == 1


@pytest.mark.parametrize("left", [0, 1, 20, 60, 120, 150])
def test_a_row_that_a_crash_cut_off_is_removed(
    left: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole rows stay, and the file stays one that can be read."""
    monkeypatch.setattr(line_file, "_BLOCK", 16)
    path = tmp_path / "events.csv"
    with loggers.csv(path) as log:
        log(report(1))
        log(report(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    with loggers.csv(path) as log:
        log(report(3))
    kept = whole[:left].count(b"\n")
    assert len(path.read_bytes().splitlines()) == max(1, kept) + 1
    assert [row["row"] for row in rows(path)] == [*"12"[: max(0, kept - 1)], "3"]


def test_a_full_disk_leaves_no_part_of_a_row(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is lost with an error, and the next row is whole."""

    class Full(io.FileIO):
        """A file on a disk that has room for ten bytes, once."""

        room = 10

        def write(self, data: Any) -> int:
            """Write what there is room for."""
            written, self.room = super().write(data[: self.room]), 10**6
            return written

    path = tmp_path / "events.csv"
    loggers.csv(path).close()
    monkeypatch.setattr(io, "FileIO", Full)
    with loggers.csv(path) as log:
        with pytest.raises(OSError, match="A line was not written") as caught:
            log(report(1))
        log(report(2))
    assert caught.value.errno == errno.ENOSPC
    assert [row["row"] for row in rows(path)] == ["2"]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "no newline", "time,event\n"])
def test_a_file_with_other_columns_is_left_as_it_is(
    content: str, tmp_path: pathlib.Path
) -> None:
    """A table is never broken by rows of another form."""
    path = tmp_path / "events.csv"
    path.write_text(content)
    with pytest.raises(
        ValueError, match="must be a new file, or have the columns time"
    ):
        loggers.csv(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "columns", [["lr"], ["metrics"], [3], ["metrics/a", "metrics/a"]]
)
def test_columns_are_checked(columns: Any, tmp_path: pathlib.Path) -> None:
    """Before a file is made."""
    with pytest.raises(ValueError, match="columns must be distinct names such as"):
        loggers.csv(tmp_path / "events.csv", columns)
    assert not list(tmp_path.iterdir())


WRITER = """
import sys
from population import Checkpoint, Event
from population.report import loggers
with loggers.csv(sys.argv[1]) as log:
    for row in range(300):
        found = Checkpoint("p", {"x": "y" * row}, "g", 1.0, None, 1, 1.0, row=row)
        log(Event("report", int(sys.argv[2]), found))
"""


def test_threads_and_processes_share_a_csv(tmp_path: pathlib.Path) -> None:
    """Each row is whole, there is one header, and each writer's rows are in order."""
    path = tmp_path / "events.csv"
    command = [sys.executable, "-c", WRITER, str(path)]
    others = [subprocess.Popen([*command, str(number)]) for number in (1, 2)]
    with loggers.csv(path) as log:
        threads = [
            threading.Thread(
                target=lambda: [log(report(row)) for row in range(200)], name=str(name)
            )
            for name in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    found = rows(path)
    assert len(found) == 4 * 200 + 2 * 300
    assert path.read_text().count("generation_id") == 1
    for number in ("1", "2"):
        order = [int(row["row"]) for row in found if row["worker_id"] == number]
        assert order == [*range(300)]


# TensorBoard


def read_back(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scalars and texts of a run as TensorBoard loads them: steps and contents."""
    needed("tensorboardX")
    name = "tensorboard.backend.event_processing.event_accumulator"
    sizes = {"scalars": 0, "tensors": 0}
    found = needed(name).EventAccumulator(str(folder), size_guidance=sizes).Reload()
    scalars = {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }
    texts = {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode())
            for event in found.Tensors(tag)
        ]
        for tag in found.Tags()["tensors"]
    }
    return scalars, texts


def to_tensorboard(folder: pathlib.Path, **options: Any) -> loggers.EventLogger:
    """A logger, if tensorboardX is there."""
    needed("tensorboardX")
    return loggers.tensorboard(folder, **options)


def test_tensorboard_reads_what_a_run_has_logged(tmp_path: pathlib.Path) -> None:
    """A run a member: value, metrics, hyperparameters and what has happened."""
    with to_tensorboard(tmp_path) as log:
        trained(log)
    scalars, texts = read_back(tmp_path / "worker_0")
    assert [value for _, value in scalars["value"]][::2] == [1.0, 0.5]
    assert math.isnan(scalars["value"][1][1])
    assert [step for _, step in scalars["step"]] == [1, 2, 3, 1, 2]
    rates = [rate for _, rate in scalars["meta_params/lr"]]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.9, 0.9])
    assert [text.strip() for _, text in texts["meta_params/how"]] == ["x"]
    ((_, branch),) = texts["events/branch"]
    assert "step 1; as planned; from step 1 of " in branch
    assert "; lr 0.9  how x" in branch
    ((_, diverged),) = texts["events/diverged"]
    assert diverged == "    step 2; value nan"
    _, texts = read_back(tmp_path / "worker_1")
    failed = [text for _, text in texts["events/failed"]]
    assert failed == ['    step 0; a, "pity"\n    indeed'] * 3
    assert len(texts["events/retired"]) == 1


def test_tensorboard_gets_leaves_of_every_kind(tmp_path: pathlib.Path) -> None:
    """Numbers are scalars, other leaves texts; a text is repeated once it changes."""
    metrics: Any = {"a": {"b": [0.5, "x"]}, "huge": 10**400, "none": None, "\udc80": 1}
    with to_tensorboard(tmp_path) as log:
        log(report(1, math.inf, metrics=metrics))
        log(report(2, -1e300, metrics=metrics, meta_params=2))
        metrics["a"]["b"][1] = "*y*\nz"
        log(report(3, None, metrics=metrics))
        log(report(4, metrics=7, meta_params="adam"))
        log(Event("claim", 3, checkpoint(5)))
        log(Event("finished", -1, None))
    log(report(6))  # Too late.
    scalars, texts = read_back(tmp_path / "worker_3")
    assert scalars["value"] == [(1, math.inf), (2, -math.inf), (4, 0.5)]
    assert scalars["metrics/a/b/0"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert scalars["metrics"] == [(4, 7.0)]
    assert scalars["meta_params/deep/on"] == [(1, 1.0), (3, 1.0)]
    assert scalars["meta_params"] == [(2, 2.0)]
    assert len(scalars["metrics/\\udc80"]) == 3
    assert texts["metrics/a/b/1"] == [(1, "    x"), (3, "    *y*\n    z")]
    assert texts["meta_params"] == [(4, "    adam")]
    assert texts["metrics/none"] == [(1, "    None")]
    assert len(texts["metrics/huge"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["worker_3"]


def test_the_axis_of_tensorboard_never_goes_back(tmp_path: pathlib.Path) -> None:
    """Not for a value that comes late, nor for events of one row: each has a place."""
    with to_tensorboard(tmp_path) as log:
        log(report(5, None))
        log(report(9, 0.9))
        log(report(5, 0.5))
        log(Event("failed", 3, checkpoint(9), "one"))
        log(Event("retired", 3, checkpoint(9), "one"))
        log(Event("failed", 3, checkpoint(9), "two"))
        log(report(30, 3.0))
    scalars, texts = read_back(tmp_path / "worker_3")
    assert scalars["value"] == [(9, pytest.approx(0.9)), (10, 0.5), (30, 3.0)]
    assert texts["events/failed"] == [
        (10, "    step 20; one"),
        (11, "    step 20; two"),
    ]
    assert texts["events/retired"] == [(10, "    step 20; one")]


def test_a_resumed_run_adds_files_for_tensorboard(tmp_path: pathlib.Path) -> None:
    """TensorBoard joins them, and no point is there twice."""
    for _ in range(3):
        with to_tensorboard(tmp_path / "tb") as log:
            run = PopulationController(
                [META], Scripted(), tmp_path / "run", on_event=log
            )
            reporter(run)(1.0)
            reporter(run)(2.0)
            run.close()
    files = list((tmp_path / "tb" / "worker_0").iterdir())
    assert len(files) == 3
    scalars, _ = read_back(tmp_path / "tb" / "worker_0")
    assert [step for _, step in scalars["step"]] == [1, 2, 3, 4, 5, 6]
    places = [row for row, _ in scalars["value"]]
    assert places == sorted(set(places))


def test_two_loggers_of_one_folder_do_not_write_to_one_file(
    tmp_path: pathlib.Path,
) -> None:
    """Nor do those of two processes: nothing that was logged is overwritten."""
    with to_tensorboard(tmp_path) as one, to_tensorboard(tmp_path) as other:
        one(report(1, 0.5))
        other(report(2, 0.25))
    names = [path.name for path in (tmp_path / "worker_3").iterdir()]
    assert len(names) == 2
    scalars, _ = read_back(tmp_path / "worker_3")
    assert scalars["value"] == [(1, 0.5), (2, 0.25)]


def test_only_the_chosen_members_get_a_run_of_tensorboard(
    tmp_path: pathlib.Path,
) -> None:
    """A population of thousands would open thousands of files."""
    with to_tensorboard(tmp_path, workers=[1]) as log:
        trained(log)
    assert [path.name for path in tmp_path.iterdir()] == ["worker_1"]


def test_what_was_logged_is_on_the_disk_without_close(tmp_path: pathlib.Path) -> None:
    """At the end of the program."""
    needed("tensorboardX")
    code = WRITER.replace("with loggers.csv(sys.argv[1]) as log:", "if 1:")
    code = code.replace("if 1:", "log = loggers.tensorboard(sys.argv[1])\nif 1:")
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "3"], check=True, timeout=60
    )
    scalars, _ = read_back(tmp_path / "worker_3")
    assert len(scalars["value"]) == 300


def test_without_tensorboardx_the_error_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the logger is made, not at the first event."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install population-jax\[report\]"):
        loggers.tensorboard(tmp_path)
    with pytest.raises(ValueError, match="flush_s must be a positive number, got 0"):
        loggers.tensorboard(tmp_path, flush_s=0)


# Several


def test_combined_loggers_all_get_each_event(tmp_path: pathlib.Path) -> None:
    """Also if one of them raises an exception; that is raised afterwards."""
    heard: list[str] = []

    def broken(event: Event) -> None:
        heard.append("broken")
        raise RuntimeError(event.kind)

    path = tmp_path / "events.csv"
    both = loggers.combined(
        broken, loggers.csv(path), lambda event: heard.append(event.kind)
    )
    with both, pytest.raises(RuntimeError, match="report"):
        both(report())
    assert heard == ["broken", "report"]
    assert len(rows(path)) == 1
    with contextlib.suppress(RuntimeError):
        both(report())
    assert len(rows(path)) == 1  # The file is closed.
    with pytest.raises(TypeError, match="got str"):
        loggers.combined("events.csv")  # type: ignore[arg-type]


def test_leaves_have_the_names_of_their_place() -> None:
    """For loggers of one's own."""
    tree = {"a": {"b": 1}, "c": (2, None)}
    assert loggers.named("m", tree) == {"m/a/b": 1, "m/c/0": 2, "m/c/1": None}
    assert loggers.named("m", 0.5) == {"m": 0.5}
    assert loggers.named("m", None) == {}
    assert loggers.named("m", Ref("g", 3)) == {"m": Ref("g", 3)}
