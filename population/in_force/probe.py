"""Remembers which numbers of `init` depend on meta_params; loads no framework."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

Places = frozenset[str]


class Probes:
    """Caches the places where the numbers of `init` depend on meta_params.

    A run tries `init` once, and again for each other structure or choice. Safe for
    threads: others wait until the first caller has the answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Hashable, Places | None] = {}

    def moving(
        self, structure: Hashable, find: Callable[[], Places | None]
    ) -> Places | None:
        """Return the result of the first call of `find`; None: unknown."""
        with self._lock:
            if structure not in self._found:
                self._found[structure] = find()
            return self._found[structure]
