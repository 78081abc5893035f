"""Says a thing about a generation, or about a run, the first time that it happens."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

logger = logging.getLogger("population")
_REMEMBERED = 10_000


class Notice(NamedTuple):
    """Something to be said of a run.

    Attributes:
        kind: What it is about; each kind is said once of a key.
        key: The hyperparameter, or the generation.
        text: The words.
        level: Of the log record.
    """

    kind: str
    key: str
    text: str
    level: int = logging.WARNING


class Notices:
    """Says each notice once, until there are too many to remember. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[tuple[str, str]] = set()

    def say(self, notice: Notice) -> None:
        """Say it, the first time."""
        with self._lock:
            new = (notice.kind, notice.key) not in self._said
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said.add((notice.kind, notice.key))
        if new:
            logger.log(notice.level, "%s", notice.text)

    def say_of_generation(
        self,
        generation_id: str,
        what: str,
        detail: str = "",
        level: int = logging.DEBUG,
    ) -> None:
        """Say `what` about a generation, once; `detail` is of the first time."""
        text = f"generation {generation_id} {what}{detail}"
        self.say(Notice(what, generation_id, text, level))
