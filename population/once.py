"""Says a thing about a generation the first time that it happens."""

from __future__ import annotations

import logging

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
