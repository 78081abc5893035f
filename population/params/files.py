"""A params store with a file for each save, in Flax's msgpack format."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any

import jax

from population.base import run_paths
from population.params import disk, folders, trees
from population.params.folder_store import FolderStore


class FileParams(FolderStore):
    """Keeps each tree in a file in Flax's msgpack format.

    A file with the name of a save is complete, even after a kill during a save.

    Args:
        folder: The folder for the files; made by the first save.

    Attributes:
        folder: The absolute path of that folder.

    Raises:
        ValueError: `folder` is a URL.
    """

    _suffix = ".msgpack"
    _saves_are_files = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if run_paths.is_url(os.fspath(folder)):
            raise ValueError(
                f"folder must be a local folder, got {os.fspath(folder)!r}. For a "
                f"bucket use OrbaxParams({folders.whole_url(os.fspath(folder))!r})."
            )
        self.folder = run_paths.absolute_folder(folder)
        super().__init__(self.folder)

    def load(self, path: str, like: Any = None) -> Any:
        """Read a tree back.

        Args:
            path: The path that `save` has returned.
            like: A tree of the wanted structure and kinds of leaves. None: dicts, lists
                and tuples of arrays come back as they were.

        Raises:
            ParamsError: The file cannot be read, is damaged or that of another save, or
                does not fit `like`.
        """
        file = self.folder / disk.loadable(path)
        with disk.reading(str(file)):
            content = disk.unpacked(folders.content(file), path, str(file))
            if like is None:
                return trees.rebuilt(content["leaves"], content["layout"], str(file))
        return trees.fitted(content["leaves"], like, str(file))

    def _write(self, place: pathlib.Path, path: str, tree: Any) -> None:
        """Write the leaves, each under its path within the tree."""
        leaves = trees.by_path(jax.tree.map(trees.to_host, tree))
        content = {"path": path, "layout": trees.layout(tree), "leaves": leaves}
        disk.write(place, *disk.packed(content))

    def _erase(self, place: pathlib.Path) -> None:
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError, IsADirectoryError
        ):
            place.unlink()
