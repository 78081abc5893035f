"""How to make each params store, for the tests of all stores."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from population.params import FileParams, MemoryParams, OrbaxParams

# By name: a function that makes one with its saves in a folder.
ON_DISK: dict[str, Callable[[pathlib.Path], Any]] = {
    "files": FileParams,
    "orbax": OrbaxParams,
}
STORES: dict[str, Callable[[pathlib.Path], Any]] = {
    "memory": lambda folder: MemoryParams(),
    **ON_DISK,
}


def files_of(folder: pathlib.Path, saved: str) -> list[pathlib.Path]:
    """The files of one save."""
    place = folder / saved
    if place.is_file():
        return [place]
    return sorted(file for file in place.rglob("*") if file.is_file())


def complete(store: Any, folder: str) -> list[str]:
    """All files and folders that have the name of a save."""
    return [path for path in store.names(folder) if not path.endswith(".tmp")]


class CountedFiles(FileParams):
    """Notes each load in a file, so that loads of all processes count."""

    def load(self, path: str, like: Any = None) -> Any:
        """Note the path, then read the tree."""
        with (self.folder / "loaded").open("a") as file:
            file.write(f"{path}\n")
        return super().load(path, like)

    @property
    def loaded(self) -> list[str]:
        """The paths that were loaded so far."""
        noted = self.folder / "loaded"
        return noted.read_text().split() if noted.exists() else []
