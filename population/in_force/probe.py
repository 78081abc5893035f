"""What `init` was found to make of meta_params; loads no framework."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

Places = frozenset[str]


class Probes:
    """Where `init` makes another number of other meta_params.

    It is asked once a run; once more for each structure or choice that is another.

    Safe for threads: who asks meanwhile waits for the answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Hashable, Places | None] = {}

    def moving(
        self, structure: Hashable, find: Callable[[], Places | None]
    ) -> Places | None:
        """What `find` returns for the first asker; None: unknown."""
        with self._lock:
            if structure not in self._found:
                self._found[structure] = find()
            return self._found[structure]
