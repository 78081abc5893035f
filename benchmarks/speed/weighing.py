"""A store that counts the bytes of its saves, and a stopwatch for functions."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

from population.params import FileParams


class Weighed(FileParams):
    """A store that counts the bytes of its saves."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._root = folder
        self._bytes: dict[str, int] = {}
        self._lock = threading.Lock()  # Another thread removes.
        self.total = 0
        self.one = 0
        self.removed = 0

    def save(self, name: str, tree: Any) -> str:
        """Save, and count the bytes of the file."""
        path = super().save(name, tree)
        with self._lock:
            self.one = self._bytes[path] = (self._root / path).stat().st_size
            self.total += self.one
        return path

    def remove(self, path: str) -> None:
        """Remove; the total is reduced once the file is off the disk."""
        super().remove(path)
        with self._lock:
            if path in self._bytes and not (self._root / path).exists():
                self.total -= self._bytes.pop(path)
                self.removed += 1

    def on_disk(self) -> int:
        """The bytes of all saves, counted on the disk itself."""
        paths = (
            os.path.join(folder, name)
            for folder, _, names in os.walk(self._root)
            for name in names
            if os.path.basename(folder) != ".runs"  # Marks of runs, no saves.
        )
        return sum(os.stat(path).st_size for path in paths)


class Stopwatch:
    """Adds up the time that functions take.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its calls are timed."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed
