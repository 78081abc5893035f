"""Says a thing about a generation, or about a run, the first time that it happens."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

logger = logging.getLogger("population")
_REMEMBERED = 10_000


class LogOnce:
    """Logs each thing about a generation once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def __call__(
        self,
        generation_id: str,
        what: str,
        detail: str = "",
        level: int = logging.DEBUG,
    ) -> None:
        """Say `what` about a generation, once; `detail` is of the first time."""
        if (generation_id, what) in self._said:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add((generation_id, what))
        logger.log(level, "generation %s %s%s", generation_id, what, detail)


class Notice(NamedTuple):
    """Something to be said of a run.

    Attributes:
        kind: What it is about; each kind is said once of a key.
        key: The hyperparameter.
        text: The words.
    """

    kind: str
    key: str
    text: str


class Notices:
    """Says each notice once. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[tuple[str, str]] = set()

    def say(self, notice: Notice) -> None:
        """Say it, the first time."""
        with self._lock:
            new = (notice.kind, notice.key) not in self._said
            self._said.add((notice.kind, notice.key))
        if new:
            logger.warning("%s", notice.text)
