"""Damages journals at random, and checks how the library reacts."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random
import shutil
import signal
import sqlite3
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import population
from population import Mutator, PopulationController
from population.base.types import InMemory
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.mutators.exploit import Truncation
from tests import probe

LIMIT_S = 10
JOURNAL = "journal.sqlite"
_DEEP = 100_000
_PAGE = 1024
_HEADER = 100
_TAGS = [
    '{"!ref":5}',
    '{"!ref":["nowhere-0-0"]}',
    '{"!ref":["nowhere-0-0",3]}',
    '{"!tuple":5}',
    '{"!dict":[1]}',
    '{"!dict":[[[],1]]}',
    '{"!float":"x"}',
    '{"!float":[]}',
    '{"!saved":5}',
    '{"!saved":"../../x"}',
    '{"!saved":"/abs-0badcafe.safetensors"}',
    '{"!held":["x"]}',
    '{"!held":[5,"y"]}',
    '{"!held":["0badcafe",1]}',
    '{"!path":5}',
    '{"!data":{}}',
    '{"!data":5}',
    '{"!what":1}',
]
_TEXTS = [
    *("", "x", "locked", "../x", "/abs", "nan", "1e5", "ab-0-0", "{", '"x"', "null"),
    *("[]", "{}", "0", "-1", "1.5", "true", "1e999", "7" * 5000, '["a","b",1,"c","d"]'),
    "[" * _DEEP + "]" * _DEEP,
    '{"!tuple":[' * 2000 + "]}" * 2000,
]
_NUMBERS = [
    *(-1, 0, 1, 2, 7, 10**9, 2**31, 2**62, 2**63 - 1, -(2**63)),
    *(1.5, -0.5, 1e308, float("inf")),
]


@dataclasses.dataclass(frozen=True)
class Run:
    """A small run that is ready to be damaged.

    Attributes:
        folder: It has the run in `closed`, and a run that was killed in `open`.
        mutator: Its policy.
        answers: What the undamaged run answers.
    """

    folder: pathlib.Path
    mutator: Callable[[], Mutator[Any]]
    answers: dict[str, str]


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def asynchronous() -> Mutator[Any]:
    """The policy of most runs."""
    return WinnerTakeAllGenetic(mutate, 3)


def synchronous() -> Mutator[Any]:
    """The policy of the runs whose slots wait for each other."""
    return PopulationBasedTraining(mutate, 3, exploit=Truncation(0.5), synchronous=True)


def opened(
    folder: pathlib.Path, mutator: Callable[[], Mutator[Any]]
) -> PopulationController:
    """A run of three slots."""
    return PopulationController([1.0, 2.0, 3.0], mutator(), folder)


def _train(controller: PopulationController, what: str) -> None:
    for count in range(27):
        worker_id = count % 3
        if what == "failing" and count % 4 == 3:
            controller.fail(worker_id, f"it broke at {count}")
            continue
        work = controller.workers[worker_id]
        if what == "workers":
            with controller.worker(worker_id) as worker:
                worker.poll()
                worker.step += 1
                value = abs(worker.meta_params) + 1 / worker.step
                worker.report(value, {"w": np.full(2, worker.step)}, {"count": count})
            continue
        at = (worker_id, work.generation_id, work.step + 1)
        value = abs(work.meta_params) + 1 / at[2]
        if what == "late":
            controller.set_eval(*at, f"at {at[2]}", None)
            controller.set_eval(*at, None, value, {"count": count})
        else:
            params = {"w": np.full(2, at[2])} if what == "arrays" else f"at {at[2]}"
            controller.set_eval(*at, params, value, {"count": count})


def _held(controller: PopulationController) -> None:
    controller.claim_all()
    for step in range(1, 9):
        work = controller.workers
        controller.set_evals(
            [
                (
                    w,
                    at.generation_id,
                    at.step + 1,
                    InMemory(),
                    abs(at.meta_params) + 1 / step,
                )
                for w, at in enumerate(work)
            ]
        )
    probe.release_all(controller)


def made(parent: pathlib.Path) -> dict[str, Run]:
    """A run of each kind."""
    runs = {}
    kinds = "paths", "arrays", "workers", "late", "synchronous", "held", "failing"
    for kind in (*kinds, "forked"):
        folder = parent / kind
        mutator = synchronous if kind in ("synchronous", "held") else asynchronous
        if kind == "forked":
            origin = parent / "arrays" / "closed"
            controller = population.fork(origin, folder / "closed", mutator=mutator())
            _train(controller, "arrays")
        else:
            controller = opened(folder / "closed", mutator)
            if kind == "held":
                _held(controller)
            else:
                _train(controller, kind)
            if kind == "failing":
                for _ in range(3):
                    controller.fail(2, "it is worn out")
                controller.revive(2)
        shutil.copytree(folder / "closed", folder / "open")
        (folder / "open" / f"{JOURNAL}-shm").unlink()
        controller.close()
        check = parent / "whole"
        shutil.copytree(folder / "closed", check)
        whole = opened(check, mutator)
        runs[kind] = Run(folder, mutator, _answers(whole))
        whole.close()
        shutil.rmtree(check)
    return runs


def _answers(controller: PopulationController) -> dict[str, str]:
    best = controller.best()
    found: dict[str, Any] = {"best": best}
    if best is not None:
        found["lineage"] = controller.lineage(best)
        found["schedule"] = controller.schedule(best)
    found["history"] = list(controller.history())
    found["reachable"] = sorted(controller.reachable())
    found["workers"] = controller.workers
    found["diverged"] = controller.diverged()
    found["retired"] = probe.retired(controller)
    found["failures"] = [
        (worker_id, status.kind, status.failures)
        for worker_id, status in sorted(probe.statuses(controller).items())
    ]
    found["graph"] = [(name, len(part)) for name, part in controller.graph.items()]
    return {name: repr(value) for name, value in found.items()}


# The kinds of damage.


def damage(folder: pathlib.Path, choose: random.Random) -> str:
    """Damage the journal in a folder; returns a description."""
    log = folder / f"{JOURNAL}-wal"
    kinds = [_cell] * 9 + [_rows] * 4 + [_cycle, _index] + [_bytes] * 3
    kinds += [_pages, _cut]
    while True:
        some = kinds + [_log] * 12 * log.exists()
        what = choose.choice(some)(folder / JOURNAL, choose)
        if what:
            return what


@contextlib.contextmanager
def _changing(file: pathlib.Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.text_factory = bytes
    try:
        yield connection
    finally:
        connection.close()


def _tables(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return [name.decode() for (name,) in connection.execute(sql)]


def _some_row(
    connection: sqlite3.Connection, choose: random.Random
) -> tuple[str, list[str], tuple[Any, ...]] | None:
    table = choose.choice(_tables(connection))
    cursor = connection.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    if not rows:
        return None
    # The first and the newest rows are those that are read.
    index = choose.choice([0, -1, -1, choose.randrange(len(rows))])
    return table, columns, rows[index]


def _matching(columns: list[str], row: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """A condition that only this row fulfils; strings were read as bytes."""
    parts = [
        f"CAST({name} AS BLOB) IS ?" if type(value) is bytes else f"{name} IS ?"
        for name, value in zip(columns, row, strict=True)
    ]
    return " AND ".join(parts), list(row)


def _value(
    connection: sqlite3.Connection, choose: random.Random, old: Any
) -> tuple[str, Any]:
    """The new value of a cell, as SQL and its parameters."""
    kind = choose.choice(["number", "text", "tag", "other", "other", "near", "odd"])
    if kind == "number":
        return "?", choose.choice(_NUMBERS)
    if kind == "text":
        return "?", choose.choice(_TEXTS)
    if kind == "tag":
        return "?", choose.choice(_TAGS)
    if kind == "near" and type(old) is bytes and old:
        place = choose.randrange(len(old))
        new = old[:place] + bytes([choose.randrange(256)]) + old[place + 1 :]
        return "CAST(? AS TEXT)", new
    if kind == "near" and type(old) is int:
        return "?", old + choose.choice([-1, 1, 2])
    if kind == "other":
        found = _some_row(connection, choose)
        if found is not None:
            value = choose.choice(found[2])
            return ("CAST(? AS TEXT)" if type(value) is bytes else "?"), value
    return choose.choice(
        [("?", None), ("?", b"\x00\xff"), ("CAST(? AS TEXT)", b"\xffA"), ("?", "\x00")]
    )


def _cell(file: pathlib.Path, choose: random.Random) -> str:
    with _changing(file) as connection:
        found = _some_row(connection, choose)
        if found is None:
            return ""
        table, columns, row = found
        index = choose.randrange(len(columns))
        sql, value = _value(connection, choose, row[index])
        if value == row[index]:
            return ""
        where, values = _matching(columns, row)
        if choose.random() < 0.1:
            where, values = "1", []  # Everything in a column.
        try:
            connection.execute(
                f"UPDATE {table} SET {columns[index]} = {sql} WHERE {where}",
                [value, *values],
            )
        except (sqlite3.IntegrityError, OverflowError):
            return ""
        place = "all" if where == "1" else repr(row)[:120]
        return f"{table}.{columns[index]} of {place} = {repr(value)[:60]}"


def _rows(file: pathlib.Path, choose: random.Random) -> str:
    with _changing(file) as connection:
        found = _some_row(connection, choose)
        if found is None:
            return ""
        table, columns, row = found
        where, values = _matching(columns, row)
        kind = choose.choice(["delete", "delete", "half", "duplicate", "swap"])
        try:
            if kind == "delete":
                connection.execute(f"DELETE FROM {table} WHERE {where}", values)
            elif kind == "half":
                connection.execute(f"DELETE FROM {table} WHERE random() % 2")
            elif kind == "duplicate":
                copy = [None, *row[1:]] if choose.random() < 0.5 else list(row)
                marks = ", ".join(
                    "CAST(? AS TEXT)" if type(x) is bytes else "?" for x in copy
                )
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", copy)
            else:
                column = choose.choice(columns)
                connection.execute(
                    f"UPDATE {table} SET {column} = (SELECT o.{column} FROM {table} o "
                    f"ORDER BY o.{column} DESC LIMIT 1) WHERE {where}",
                    values,
                )
                kind = f"swap {column}"
        except (sqlite3.IntegrityError, sqlite3.OperationalError):
            return ""
        return f"{kind} {table} {repr(row)[:120]}"


def _cycle(file: pathlib.Path, choose: random.Random) -> str:
    with _changing(file) as connection:
        rows = [row for (row,) in connection.execute("SELECT row FROM checkpoints")]
        some = choose.sample(rows, choose.randrange(1, 4))
        for row, parent in zip(some, some[1:] + some[:1], strict=True):
            connection.execute(
                "UPDATE checkpoints SET parent = ? WHERE row = ?", (parent, row)
            )
        return f"a cycle of parents {some}"


def _index(file: pathlib.Path, choose: random.Random) -> str:
    with _changing(file) as connection:
        sql = (
            "SELECT name, rootpage FROM sqlite_master WHERE type = 'index' AND rootpage"
        )
        name, page = choose.choice(sorted(connection.execute(sql).fetchall()))
        if not name.startswith(b"sqlite_") and choose.random() < 0.3:
            connection.execute(f"DROP INDEX {name.decode()}")
            return f"no index {name!r}"
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    start = (page - 1) * _PAGE
    place = choose.randrange(start, start + _PAGE)
    content[place] ^= 1 << choose.randrange(8)
    file.write_bytes(content)
    return f"index {name!r}: a bit of byte {place}"


def _bytes(file: pathlib.Path, choose: random.Random) -> str:
    content = bytearray(file.read_bytes())
    count = choose.choice([1, 1, 4, 64])
    start = choose.choice([0, 0, _HEADER, choose.randrange(len(content))])
    end = len(content) if start else _HEADER
    place = choose.randrange(start, end)
    content[place : place + count] = choose.randbytes(count)[: len(content) - place]
    file.write_bytes(content)
    return f"{count} bytes at {place}"


def _pages(file: pathlib.Path, choose: random.Random) -> str:
    content = bytearray(file.read_bytes())
    if len(content) < 2 * _PAGE:
        return ""
    one, two = choose.sample(range(len(content) // _PAGE), 2)
    first = content[one * _PAGE : (one + 1) * _PAGE]
    content[one * _PAGE : (one + 1) * _PAGE] = content[two * _PAGE : (two + 1) * _PAGE]
    content[two * _PAGE : (two + 1) * _PAGE] = first
    file.write_bytes(content)
    return f"pages {one} and {two} swapped"


def _cut(file: pathlib.Path, choose: random.Random) -> str:
    size = choose.randrange(file.stat().st_size)
    with file.open("rb+") as stream:
        stream.truncate(size)
    return f"cut to {size} bytes"


def _log(file: pathlib.Path, choose: random.Random) -> str:
    log = file.with_name(f"{file.name}-wal")
    content = bytearray(log.read_bytes())
    if choose.random() < 0.3:
        size = choose.randrange(len(content))
        log.write_bytes(content[:size])
        return f"the log cut to {size} bytes"
    place = choose.choice([choose.randrange(32), choose.randrange(len(content))])
    if choose.random() < 0.3:
        struct.pack_into(">I", content, min(place, len(content) - 4), 2**31)
    else:
        content[place] ^= 1 << choose.randrange(8)
    log.write_bytes(content)
    return f"the log at byte {place}"


# How the library reacts.


class Late(BaseException):
    """Something took too long."""


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(run: Run, folder: pathlib.Path) -> str:
    """How the library reads a damaged copy of a run: "right", "refused", "accepted".

    Raises:
        AssertionError: The library should refuse the run and does not.
        Exception: Any error that the library does not raise itself.
    """
    found = set()
    with warnings.catch_warnings(), _in_time():
        warnings.simplefilter("ignore")
        for act in (_replay, _fork, _use):
            copy = folder.with_name(f"{folder.name}-{act.__name__}")
            shutil.copytree(folder, copy)
            found.add(act(run, copy))
            _check_unlocked(copy)
            shutil.rmtree(copy)
    for what in ("refused", "accepted"):
        if what in found:
            return what
    return "right"


def _replay(run: Run, folder: pathlib.Path) -> str:
    before = (folder / JOURNAL).read_bytes()
    try:
        found = population.replay(folder, run.mutator())
    except (population.PopulationError, ValueError) as error:
        _check_refusal(error, folder, before)
        return "refused"
    return "right" if found.first_difference is None else "accepted"


def _fork(run: Run, folder: pathlib.Path) -> str:
    before = (folder / JOURNAL).read_bytes()
    new = folder.with_name(f"{folder.name}-new")
    try:
        population.fork(folder, new, mutator=asynchronous()).close()
    except (population.PopulationError, ValueError) as error:
        _check_refusal(error, folder, before)
        assert not (new / JOURNAL).exists()
        return "refused"
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return "right"


def _check_refusal(error: Exception, folder: pathlib.Path, before: bytes) -> None:
    if not isinstance(error, population.PopulationError):
        raise error
    assert (folder / JOURNAL).read_bytes() == before, "refused, yet changed"


def _use(run: Run, folder: pathlib.Path) -> str:
    before = (folder / JOURNAL).read_bytes()
    try:
        controller = opened(folder, run.mutator)
    except population.PopulationError as error:
        _check_refusal(error, folder, before)
        return "refused"
    found = "right"
    try:
        if _answers(controller) != run.answers:
            found = "accepted"
        for worker_id in range(3):
            _report(controller, folder, worker_id)
        with controller.worker(0) as worker:
            if worker.poll():
                worker.step += 1
                worker.report(0.5, "path")
        _answers(controller)
    except population.ParamsError:
        return "refused"
    except population.PopulationError:
        return "refused"
    finally:
        controller.close()
    return found


def _report(
    controller: PopulationController, folder: pathlib.Path, worker_id: int
) -> None:
    """Poll and report; the report is recorded if and only if the call returns."""
    work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
    assert work is not None
    before = _count(folder)
    try:
        controller.set_eval(worker_id, work.generation_id, work.step + 1, "p", 0.5)
    except population.PopulationError:
        assert _count(folder) == before, "raised, yet recorded"
        raise


def _count(folder: pathlib.Path) -> int:
    other = sqlite3.connect(folder / JOURNAL, isolation_level=None)
    try:
        sql = "SELECT count(*) FROM checkpoints NOT INDEXED"
        return int(other.execute(sql).fetchone()[0])
    except sqlite3.Error:
        return -1
    finally:
        other.close()


def _check_unlocked(folder: pathlib.Path) -> None:
    other = sqlite3.connect(folder / JOURNAL, isolation_level=None, timeout=0.0)
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise AssertionError("the write lock is held") from error
    finally:
        other.close()
