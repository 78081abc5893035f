"""Says a thing about a generation, or about a run, the first time that it happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("population")
_REMEMBERED = 10_000


class Once:
    """Remembers what was said.

    Args:
        quiet: Say nothing: it was all said when it happened.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._said: set[tuple[str, str]] = set()

    def __call__(
        self,
        generation_id: str,
        what: str,
        detail: str = "",
        level: int = logging.DEBUG,
    ) -> None:
        """Say `what` about a generation, once; `detail` is of the first time."""
        if self._quiet or (generation_id, what) in self._said:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add((generation_id, what))
        logger.log(level, "generation %s %s%s", generation_id, what, detail)


class Told(NamedTuple):
    """Something to be said.

    Attributes:
        kind: What it is about; each kind is said once of a key.
        key: The hyperparameter.
        text: The words.
    """

    kind: str
    key: str
    text: str


class Said:
    """What was said of a run already, and what its `init` was found to do.

    Safe for threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[tuple[str, str]] = set()
        self._asked = False
        self._moving: frozenset[str] | None = None

    def say(self, told: Told) -> None:
        """Say it, the first time."""
        with self._lock:
            new = (told.kind, told.key) not in self._said
            self._said.add((told.kind, told.key))
        if new:
            logger.warning("%s", told.text)

    def moving(
        self, find: Callable[[], frozenset[str] | None]
    ) -> frozenset[str] | None:
        """What `find` returns; it is called once a run, by whoever asks first."""
        with self._lock:
            first, self._asked = not self._asked, True
        if first:
            self._moving = find()
        return self._moving
