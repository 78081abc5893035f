"""Points at which a test fails a call or kills a process, named by what is recorded.

Like `tests.probe`, this uses internals of the library, so that no other test has to.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from population.journal.sql import TABLES
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_connection import Connection

Act = Callable[[], object]
_KINDS = {table.name: kind for kind, table in TABLES.items()}
# The queries by which a journal finds out what other processes have recorded.
_LOOKS = {"all", "changed", "generations", "reading"}


def crash_at(
    journal: Any,
    kind: str,
    number: int,
    act: Act,
    *,
    before: bool = False,
    reason: str | None = None,
) -> None:
    """Call a function at the `number`-th write of a table, counted from now.

    Args:
        journal: A journal, or a class of journals, which are then counted together.
        kind: The table; or "commit", for the end of a transaction (of a class only).
        number: Which write, from 1 on.
        act: Kills the process, or raises.
        before: Just before the record is written; else right after it.
        reason: Count only generations that were opened for this reason.
    """
    passing = nth(number, act)
    if kind == "commit":
        end = Connection.__exit__
        Connection.__exit__ = around(end, passing, before)  # type: ignore
        return
    original = journal.write

    def write(*arguments: Any) -> None:
        *own, records = arguments
        for record in records:
            counted = type(record) is _KINDS[kind]
            counted = counted and (reason is None or record.reason == reason)
            if counted and before:
                passing()
            original(*own, (record,))
            if counted and not before:
                passing()

    journal.write = write


def nth(number: int, act: Act) -> Act:
    """Return a function that calls another at its `number`-th call, from 1 on."""
    left = number

    def passing() -> None:
        nonlocal left
        left -= 1
        if not left:
            act()

    return passing


def around(
    original: Callable[..., Any], passing: Act, before: bool
) -> Callable[..., Any]:
    """Wrap a function so that something is done before or after each call."""

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if before:
            passing()
        result = original(*arguments, **options)
        if not before:
            passing()
        return result

    return wrapped


class LookedInto(SqliteJournal):
    """A journal that calls a function before one of the looks into it.

    Looks within a transaction are not counted: no other process can write then.
    """

    _writing = True  # Until it is open.

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self._count = 0
        self._act: Act | None = None
        self._writing = False

    def before(self, count: int, act: Act) -> None:
        """Call a function before the look of this number, counted from now."""
        self._count, self._act = count, act

    @property
    def waits(self) -> bool:
        """Whether the function was not called yet."""
        return self._act is not None

    @contextlib.contextmanager
    def _marked(self) -> Iterator[None]:
        with super().transaction():
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def transaction(self) -> Any:
        """No look within a transaction is counted."""
        return self._marked()

    def __getattribute__(self, name: str) -> Any:
        if name in _LOOKS and not self._writing:
            self._count -= 1
            if self._count == 0 and self._act is not None:
                act, self._act = self._act, None
                act()
        return super().__getattribute__(name)
