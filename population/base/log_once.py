"""Logs a message about a generation or a hyperparameter only the first time."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

logger = logging.getLogger("population")
_REMEMBERED = 10_000


class Notice(NamedTuple):
    """A message about a run, to be logged once.

    Attributes:
        kind: The kind of message; each kind is logged once for a key.
        key: The hyperparameter, or the generation.
        text: The text of the message.
        level: The level of the log record.
    """

    kind: str
    key: str
    text: str
    level: int = logging.WARNING


class Notices:
    """Logs each notice once, until it has too many to remember. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[tuple[str, str]] = set()

    def say(self, notice: Notice) -> None:
        """Log a notice, unless one of its kind and key was logged before."""
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
        """Log `what` about a generation once, with the `detail` of the first time."""
        text = f"generation {generation_id} {what}{detail}"
        self.say(Notice(what, generation_id, text, level))
