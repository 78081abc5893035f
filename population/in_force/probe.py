"""What `init` was found to make of meta_params; loads no framework."""

from __future__ import annotations

import threading
from collections.abc import Callable

Places = frozenset[str]


class Probes:
    """Where `init` makes another number of other meta_params, asked once a structure.

    Safe for threads: who asks meanwhile waits for the answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Places, Places | None] = {}

    def moving(
        self, structure: Places, find: Callable[[], Places | None]
    ) -> Places | None:
        """What `find` returns for the first asker; None: nobody knows."""
        with self._lock:
            if structure not in self._found:
                self._found[structure] = find()
            return self._found[structure]
