"""The SQLite journal: the cost of a tick, what it refuses, what a person can read."""

from __future__ import annotations

import json
import pathlib
import random
import re
import sqlite3
import struct
from collections.abc import Callable

import numpy as np
import pytest

from population import JournalError, PopulationController
from population.journal import sqlite_file, sqlite_schema
from population.journal.sqlite import SqliteJournal
from population.mutators import BranchingSingleMachine, WinnerTakeAllGenetic
from tests import probe
from tests.helpers import (
    Scripted,
    branch_at,
    generation,
    poll,
    reporter,
    work,
)


def statements(
    controller: PopulationController, call: Callable[[], object]
) -> list[str]:
    """The SQL that a call executes, with its values."""
    found: list[str] = []
    probe.connection(controller).set_trace_callback(found.append)
    try:
        call()
    finally:
        probe.connection(controller).set_trace_callback(None)
    return [" ".join(statement.split()) for statement in found]


def kinds(found: list[str]) -> list[str]:
    """The first words of statements, enough to distinguish them."""
    return [
        " ".join(s.split()[:3]) if s.startswith(("INSERT", "REPLACE")) else s
        for s in found
    ]


def winner(h: float, rng: np.random.Generator) -> float:
    """A mutation."""
    return float(h + rng.normal())


# The cost of a tick.


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_poll_without_news_executes_no_write(
    on_disk: bool, tmp_path: pathlib.Path
) -> None:
    """It asks whether another connection has written; in memory not even that."""
    controller = PopulationController(
        [1.0] * 3, WinnerTakeAllGenetic(winner, 5), tmp_path if on_disk else None
    )
    first = generation(controller)
    controller.set_eval(0, first, 1, "p", 1.0)
    found = statements(controller, lambda: poll(controller, 0, first, 2, "p2"))
    assert found == (["PRAGMA data_version"] if on_disk else [])
    controller.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_report_between_rounds_is_one_insert(
    on_disk: bool, tmp_path: pathlib.Path
) -> None:
    """There is one more for the best so far, or the first with params."""
    controller = PopulationController(
        [1.0] * 3, WinnerTakeAllGenetic(winner, 50), tmp_path if on_disk else None
    )
    first = generation(controller)
    version = ["PRAGMA data_version"] if on_disk else []
    checkpoint, best = "INSERT INTO checkpoints", "INSERT INTO best"

    def cost(step: int, value: float | None, params: str | None = "p") -> list[str]:
        return kinds(
            statements(
                controller,
                lambda: controller.set_eval(0, first, step, params, value, {"a": 1}),
            )
        )

    begin, end = ["BEGIN IMMEDIATE", *version], ["COMMIT"]
    assert cost(1, 5.0, None) == [*begin, checkpoint, best, *end]
    assert cost(2, 6.0) == [*begin, "INSERT INTO facts", checkpoint, *end]
    assert cost(3, 4.0) == [*begin, checkpoint, best, *end]
    assert cost(4, 4.0) == [*begin, checkpoint, *end]
    assert cost(5, None) == [*begin, checkpoint, *end]
    assert cost(6, float("nan")) == [*begin, checkpoint, *end]
    controller.close()


@pytest.mark.parametrize("size", [4, 400])
def test_a_report_costs_the_same_however_many_slots_there_are(size: int) -> None:
    """Between rounds no lookup is for other slots."""
    controller = PopulationController([1.0] * size, WinnerTakeAllGenetic(winner, 50))
    report = reporter(controller, size - 1)
    report(1.0)
    last = generation(controller, size - 1)
    found = statements(
        controller, lambda: controller.set_eval(size - 1, last, 2, "p", 2)
    )
    assert kinds(found) == ["BEGIN IMMEDIATE", "INSERT INTO checkpoints", "COMMIT"]


def effort(controller: PopulationController, call: Callable[[], object]) -> int:
    """How many instructions of its virtual machine SQLite executes in a call."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    probe.connection(controller).set_progress_handler(count, 1)
    try:
        call()
    finally:
        probe.connection(controller).set_progress_handler(None, 1)
    return counted[0]


def efforts(history: int) -> dict[str, int]:
    """The cost of each kind of call after this many reports."""
    mutator = Scripted()
    controller = PopulationController([1.0] * 4, mutator)
    ids = [generation(controller, i) for i in range(4)]
    for step in range(1, history):
        controller.set_eval(step % 4, ids[step % 4], step, f"p{step}", 1 + 1 / step)
    mutator._decide = branch_at(history + 3, 5.0, worker_id=1)
    last = history + 5
    return {
        "report": effort(
            controller, lambda: controller.set_eval(0, ids[0], last, "p", 1.0)
        ),
        "unsaved": effort(
            controller, lambda: controller.set_eval(0, ids[0], last + 1, None, 9.0)
        ),
        "late": effort(
            controller, lambda: controller.set_eval(0, ids[0], 1, None, 1.0)
        ),
        "again": effort(
            controller, lambda: controller.set_eval(0, ids[0], 4, "p", 1.0)
        ),
        "branch": effort(
            controller,
            lambda: controller.set_eval(1, ids[1], history + 3, "p", 1.0),
        ),
        "side": effort(
            controller,
            lambda: controller.set_eval(1, ids[1], history + 4, "p", 1.0),
        ),
        "resume": effort(controller, lambda: work(controller, 0)),
        "best": effort(controller, controller.best),
        "find": effort(controller, lambda: controller.graph.find(5.0)),
        "load": effort(controller, lambda: probe.forget(controller)),
        "newest": effort(controller, lambda: controller.graph[ids[2]].get(9)),
    }


def test_no_call_costs_more_when_the_history_is_longer() -> None:
    """SQLite's instructions are counted, not seconds: nothing is scanned."""
    short, long = efforts(40), efforts(1200)
    assert {name: long[name] - cost for name, cost in short.items()} == {
        name: pytest.approx(0, abs=8) for name in short
    }


def _explore(h: float, direction: str, cycle: int) -> float:
    return h + (1 if direction == "pos" else -1)


def test_every_lookup_uses_an_index(tmp_path: pathlib.Path) -> None:
    """Only a walk through the whole history scans a table."""
    found: list[str] = []
    for name, size, mutator in (
        ("winner", 3, WinnerTakeAllGenetic(winner, 2)),
        ("synchronous", 3, WinnerTakeAllGenetic(winner, 2, synchronous=True)),
        ("explore", 1, BranchingSingleMachine(_explore, 2, 2)),
    ):
        controller = PopulationController([1.0] * size, mutator, tmp_path / name)

        def everything(
            controller: PopulationController = controller, size: int = size
        ) -> None:
            for step in range(1, 40):
                for i in range(size):
                    slot = work(controller, i)
                    at = (slot.generation_id, slot.step + 1)
                    saved = "p" if step % 3 else None
                    controller.set_eval(i, *at, saved, None)
                    controller.set_eval(i, *at, saved, 1 / step)
                    poll(controller, i, "unknown")
            probe.forget(controller)
            controller.lineage(controller.newest(0))
            controller.schedule(controller.newest(0))
            assert controller.best() is not None
            controller.graph.find(1.0)
            controller.reachable()

        found += statements(controller, everything)
        plan = probe.connection(controller)
        for statement in {s for s in found if s.startswith("SELECT")}:
            for row in plan.execute(f"EXPLAIN QUERY PLAN {statement}"):
                _check_plan(row[3], statement)
        found.clear()
        controller.close()


def _check_plan(step: str, statement: str) -> None:
    if not step.startswith("SCAN"):
        return
    table = step.split()[1]
    if table in ("facts", "state", "saves", "losses", "statuses", "CONSTANT"):
        return  # These have few rows.
    # The end of a table is found without a scan; the numbers above show it.
    assert re.search("ORDER BY (row|rowid) DESC LIMIT 1", statement), (
        f"{step}: {statement}"
    )


# What is refused.


def test_the_file_says_whose_it_is(tmp_path: pathlib.Path) -> None:
    """The header identifies it, for the `file` command."""
    PopulationController([1.0], Scripted(), tmp_path).close()
    header = (tmp_path / "journal.sqlite").read_bytes()[:100]
    (owner,) = struct.unpack_from(">I", header, 68)
    (version,) = struct.unpack_from(">I", header, 60)
    assert (owner, version) == (sqlite_schema.APPLICATION_ID, sqlite_schema.FORMAT)
    assert owner.to_bytes(4, "big") == b"POPJ"


def foreign(path: pathlib.Path, *pragmas: str) -> None:
    """A small database of another program."""
    other = sqlite3.connect(path, isolation_level=None)
    for pragma in pragmas:
        other.execute(f"PRAGMA {pragma}")
    other.execute("CREATE TABLE theirs (x)")
    other.execute("INSERT INTO theirs VALUES (1)")
    other.close()


@pytest.mark.parametrize(
    "pragmas",
    [
        (),
        ("page_size=512",),
        ("page_size=1024",),
        ("page_size=65536",),
        ("user_version=7",),
        ("application_id=7",),
        ("journal_mode=WAL",),
        ("page_size=512", "journal_mode=WAL"),
    ],
)
def test_a_database_of_another_program_is_left_byte_identical(
    pragmas: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    """This holds however small it is."""
    path = tmp_path / "journal.sqlite"
    foreign(path, *pragmas)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        SqliteJournal(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_that_another_program_has_open_is_left_alone(
    tmp_path: pathlib.Path,
) -> None:
    """Its tables may still be beside the file."""
    path = tmp_path / "journal.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("CREATE TABLE theirs (x)")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(JournalError, match="another program"):
        SqliteJournal(path)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after[path.name] == before[path.name]
    assert after[f"{path.name}-wal"] == before[f"{path.name}-wal"]
    assert other.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    other.close()


@pytest.mark.parametrize(
    "text", [b"a diary", b"SQLite format 3\0 but short", b"x" * 5000, b"\0" * 200]
)
def test_a_file_that_is_no_database_is_left_byte_identical(
    text: bytes, tmp_path: pathlib.Path
) -> None:
    """The message says that it was left unchanged."""
    path = tmp_path / "journal.sqlite"
    path.write_bytes(text)
    with pytest.raises(JournalError, match=r"left\s+as it is"):
        SqliteJournal(path)
    assert path.read_bytes() == text
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_becomes_a_journal(tmp_path: pathlib.Path) -> None:
    """A process that died right after it made the file leaves an empty one."""
    (tmp_path / "journal.sqlite").touch()
    controller = PopulationController([1.0], Scripted(), tmp_path)
    assert controller.workers[0].meta_params == 1.0
    controller.close()


def long_run(log_dir: pathlib.Path) -> bytes:
    """A journal of many pages."""
    controller = PopulationController([1.0], Scripted(), log_dir)
    report = reporter(controller)
    for count in range(200):
        report(1.0, f"a path of some length, number {count}")
    controller.close()
    return (log_dir / "journal.sqlite").read_bytes()


def test_a_damaged_journal_is_refused_and_left_byte_identical(
    tmp_path: pathlib.Path,
) -> None:
    """There is garbage in all pages except the first."""
    content = long_run(tmp_path)
    path = tmp_path / "journal.sqlite"
    for seed in range(3):
        garbage = random.Random(seed).randbytes(len(content) - 1024)
        path.write_bytes(content[:1024] + garbage)
        before = path.read_bytes()
        with pytest.raises(JournalError, match="damaged"):
            PopulationController([1.0], Scripted(), tmp_path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_journal_is_refused_and_left_byte_identical(
    share: float, tmp_path: pathlib.Path
) -> None:
    """The header says how long the file was."""
    content = long_run(tmp_path)
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content[: int(len(content) * share)])
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"is damaged: .* bytes belong to it"):
        SqliteJournal(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_format_of_the_future_is_refused(tmp_path: pathlib.Path) -> None:
    """The message has the version that this one reads, and advises a newer one."""
    PopulationController([1.0], Scripted(), tmp_path).close()
    path = tmp_path / "journal.sqlite"
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, 60, sqlite_schema.FORMAT + 1)
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"has the format 6;.* Install a newer"):
        PopulationController([1.0], Scripted(), tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("table", ["state", "generations", "checkpoints", "facts"])
def test_a_journal_with_missing_rows_is_a_clear_error(
    table: str, tmp_path: pathlib.Path
) -> None:
    """Another program deleted rows that the library never deletes."""
    long_run(tmp_path)
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    where = "WHERE key = 'size'" if table == "facts" else ""
    other.execute(f"DELETE FROM {table} {where}")
    other.close()
    with pytest.raises(JournalError, match="damaged"):
        PopulationController([1.0], Scripted(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE state SET state = 'no json'",
        "UPDATE facts SET value = 'no json' WHERE key = 'size'",
        "UPDATE generations SET meta_params = '{\"!unknown\":1}'",
        "UPDATE checkpoints SET params = '{'",
    ],
)
def test_text_that_cannot_be_decoded_is_a_clear_error(
    change: str, tmp_path: pathlib.Path
) -> None:
    """It is damage of the journal, not an invalid argument."""
    long_run(tmp_path)
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute(change)
    other.close()
    with pytest.raises(JournalError):
        PopulationController([1.0], Scripted(), tmp_path)


def test_a_commit_that_fails_is_rolled_back() -> None:
    """The next transaction finds the journal unchanged."""
    journal = SqliteJournal()
    probe.connection_of(journal).execute("PRAGMA foreign_keys=ON")
    probe.connection_of(journal).execute("CREATE TABLE p (id INTEGER PRIMARY KEY)")
    probe.connection_of(journal).execute(
        "CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)"
    )

    def write(sql: str) -> None:
        with journal.transaction():
            probe.connection_of(journal).execute(sql)

    with pytest.raises(JournalError, match="FOREIGN KEY"):
        write("INSERT INTO c VALUES (1)")
    write("INSERT INTO p VALUES (1)")
    counts = probe.connection_of(journal).execute(
        "SELECT (SELECT count(*) FROM c), (SELECT count(*) FROM p)"
    )
    assert counts.fetchone() == (0, 1)
    journal.close()


def test_a_full_disk_loses_nothing_that_was_recorded(tmp_path: pathlib.Path) -> None:
    """The report is refused with the reason; the run continues when there is space."""
    controller = PopulationController([1.0], Scripted(), tmp_path)
    report = reporter(controller)
    report(1.0)
    execute = probe.connection(controller).execute
    (pages,) = execute("PRAGMA page_count").fetchone()
    execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(JournalError, match=r"full.*Free some space"):
        report(0.5, "x" * 50_000)
    assert controller.workers[0].step == 1
    execute("PRAGMA max_page_count=1000000")
    report(0.5, "x" * 50_000)
    assert controller.workers[0].step == 2
    controller.close()


# What a person can read.


def test_a_person_can_query_the_history(tmp_path: pathlib.Path) -> None:
    """Plain SQL: a view with one row a checkpoint, late values included."""
    mutator = Scripted(branch_at(2, {"lr": 0.5}))
    controller = PopulationController([{"lr": 1.0}], mutator, tmp_path)
    first = generation(controller)
    controller.set_eval(0, first, 1, "at 1", None)
    controller.set_eval(0, first, 1, None, 4.0, {"acc": 0.5})
    controller.set_eval(0, first, 2, "at 2", float("nan"))
    second = generation(controller)
    controller.close()
    person = sqlite3.connect(tmp_path / "journal.sqlite")
    rows = person.execute(
        "SELECT generation_id, step, params, has_value, value, metrics, "
        "parent_generation_id, parent_step, worker_id, meta_params, reason "
        "FROM history ORDER BY row"
    ).fetchall()
    person.close()
    one, half = '{"lr":1.0}', '{"lr":0.5}'
    assert rows == [
        (first, 0, None, 0, None, None, None, None, 0, one, "start"),
        (first, 1, '"at 1"', 1, 4.0, '{"acc":0.5}', first, 0, 0, one, "start"),
        (first, 2, '"at 2"', 1, None, None, first, 1, 0, one, "start"),
        (second, 1, '"at 1"', 0, None, None, first, 1, 0, half, "as planned"),
    ]


def test_a_person_can_read_the_facts_with_any_json(tmp_path: pathlib.Path) -> None:
    """Everything fixed about the run is plain text."""
    mutator = WinnerTakeAllGenetic(winner, 7)
    PopulationController([1.0] * 2, mutator, tmp_path, mode="max", seed=3).close()
    person = sqlite3.connect(tmp_path / "journal.sqlite")
    facts = {
        key: json.loads(value)
        for key, value in person.execute("SELECT key, value FROM facts")
    }
    person.close()
    assert (facts["size"], facts["mode"], facts["seed"]) == (2, "max", 3)
    assert facts["mutator"].endswith("WinnerTakeAllGenetic")
    assert facts["settings"]["steps_per_exploit"] == 7
    assert len(facts["run"]) >= 6


def test_a_journal_holds_nothing_that_runs(tmp_path: pathlib.Path) -> None:
    """It has only text and numbers: no pickles and no code."""
    long_run(tmp_path)
    person = sqlite3.connect(tmp_path / "journal.sqlite")
    tables = person.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    for (table,) in tables.fetchall():
        for row in person.execute(f"SELECT * FROM {table}"):
            assert not any(isinstance(value, bytes) for value in row)
    person.close()


def test_the_journal_only_grows(tmp_path: pathlib.Path) -> None:
    """No row is ever changed or removed, except for the mutator's state."""
    controller = PopulationController([1.0] * 3, WinnerTakeAllGenetic(winner, 2))
    report = [reporter(controller, i) for i in range(3)]

    def train() -> None:
        for step in range(12):
            for i in range(3):
                report[i](1.0 / (step + 1))

    found = statements(controller, train)
    writes = {s.split()[0] for s in kinds(found)} - {"SELECT", "PRAGMA"}
    assert writes == {"BEGIN", "COMMIT", "INSERT"}
    assert all("INTO state" in s for s in found if "DO UPDATE" in s)


def test_a_network_file_system_is_a_warning(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost mount counts; a local one inside a remote one is fine."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(sqlite_file, "_MOUNTS", mounts)
    remote, local = tmp_path / "my home", tmp_path / "my home" / "scratch"
    local.mkdir(parents=True)
    name = str(remote).replace(" ", "\\040")
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nserver:/x {name} nfs4 rw 0 0\n"
        f"/dev/vdb {name}/scratch xfs rw 0 0\n"
    )
    with pytest.warns(UserWarning, match=r"network file system \(nfs4\).*local log_"):
        PopulationController([1.0], Scripted(), remote / "run").close()
    PopulationController([1.0], Scripted(), local / "run").close()
