"""Points at which a test fails a call or kills a process, named by what is recorded.

Like `tests.probe`, this knows the library's inside, so that no other test has to.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from population.journal.sqlite import SqliteJournal

Act = Callable[[], object]
_WRITERS = {  # The tables of the journal, by the method that writes into each.
    "facts": "add_fact",
    "sessions": "add_session",
    "generations": "add_generation",
    "checkpoints": "add_checkpoint",
    "late": "add_late",
    "best": "add_best",
    "losses": "add_loss",
    "leases": "set_lease",
    "saves": "add_save",
    "removals": "remove",
    "state": "set_state",
}
# What is asked of a journal to find out what other processes have recorded.
_LOOKS = {
    "changed",
    "owners",
    "reading",
    "rejected",
    "removed_since",
    "saves",
    "trained_since",
}
# Points of a round of `vectorized.run`: a method, and whether it has returned then.
_ROUND = {
    "trained": ("_report", False),
    "saved": ("_commit", False),
    "committed": ("_commit", True),
    "reported": ("_report", True),
}


def crash_at(
    journal: Any,
    kind: str,
    number: int,
    act: Act,
    *,
    before: bool = False,
    reason: str | None = None,
) -> None:
    """Do something at the `number`-th write of a table, counted from now.

    Args:
        journal: A journal, or a class of journals: then all of them count together.
        kind: The table; or "commit", for the end of a transaction (of a class only).
        number: Which write, from 1 on.
        act: Kills the process, or raises.
        before: Just before the record is written; else right after it.
        reason: Of generations, only those count that were opened for this reason.
    """

    def counts(arguments: tuple[Any, ...]) -> bool:
        return reason is None or arguments[-1].reason == reason

    name = "__exit__" if kind == "commit" else _WRITERS[kind]
    wrapped = around(getattr(journal, name), nth(number, act), before, counts)
    setattr(journal, name, wrapped)


def nth(number: int, act: Act) -> Act:
    """A function that does something when it is called so often, from 1 on."""
    left = number

    def passing() -> None:
        nonlocal left
        left -= 1
        if not left:
            act()

    return passing


def around(
    original: Callable[..., Any],
    passing: Act,
    before: bool,
    counts: Callable[[tuple[Any, ...]], bool] = lambda _: True,
) -> Callable[..., Any]:
    """That function with something done before or after each call that counts."""

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        counted = counts(arguments)
        if counted and before:
            passing()
        result = original(*arguments, **options)
        if counted and not before:
            passing()
        return result

    return wrapped


def crash_in_round(
    patch: pytest.MonkeyPatch, point: str, number: int, act: Act
) -> None:
    """Do something at a point of a stacked population's `number`-th round.

    Args:
        patch: What undoes it.
        point: "trained", "saved" (the params are), "committed" or "reported".
        number: Which round, from 1 on.
        act: Kills the process, or raises.
    """
    from population.engines import vectorized

    name, after = _ROUND[point]
    original = getattr(vectorized._Population, name)
    wrapped = around(original, nth(number, act), before=not after)
    patch.setattr(vectorized._Population, name, wrapped)


class LookedInto(SqliteJournal):
    """A journal that does something before one of the looks into it.

    Looks within a transaction are not counted: no other process can write then.
    """

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self._count = 0
        self._act: Act | None = None
        self._writing = False

    def before(self, count: int, act: Act) -> None:
        """Do something before the look of this number, counted from now."""
        self._count, self._act = count, act

    @property
    def waits(self) -> bool:
        """Whether it has not been done yet."""
        return self._act is not None

    def __enter__(self) -> object:
        found = super().__enter__()
        self._writing = True
        return found

    def __exit__(self, *exc: object) -> None:
        self._writing = False
        super().__exit__(*exc)

    def __getattribute__(self, name: str) -> Any:
        if name in _LOOKS and not self._writing:
            self._count -= 1
            if self._count == 0 and self._act is not None:
                act, self._act = self._act, None
                act()
        return super().__getattribute__(name)
