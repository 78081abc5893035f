"""Params in files: one for each save, in Flax's msgpack form."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax

from population import durable
from population.errors import ParamsError
from population.params import disk, trees

_SUFFIX = ".msgpack"


class FileParams:
    """Keeps each tree in one file of Flax's msgpack form.

    A file is written beside its place, synced and then renamed: after a kill, even in
    the middle of a save, what has the name of a save is whole.

    Args:
        folder: Where the files go; made when it is first needed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = pathlib.Path(folder)

    def save(self, name: str, tree: Any) -> str:
        """Write the leaves of any pytree, each under its path within the tree.

        Returns:
            The path of the file within the folder; no two saves share one.

        Raises:
            TypeError: If a leaf is neither an array, a scalar, a string nor a function.
            OSError: If it cannot be written; nothing that looks like a save is left.
        """
        trees.check(tree, plain=False)
        path = disk.new_path(name, _SUFFIX)
        leaves = trees.by_path(jax.tree.map(trees.to_host, tree))
        parts = disk.packed({"layout": trees.layout(tree), "leaves": leaves})
        file = self._folder / path
        durable.make_folder(file.parent)
        draft = file.with_name(disk.draft_name(file.name))
        try:
            disk.write(draft, *parts)
            os.replace(draft, file)
            durable.sync(file.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            file.unlink(missing_ok=True)  # Its name is its own: no other save is lost.
            raise
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """Read a tree back.

        Args:
            path: What `save` returned.
            like: A tree of the wanted structure and kinds of leaves. None: dicts, lists
                and tuples of arrays come back as they were.

        Raises:
            ParamsError: If the file is missing or damaged, or does not fit `like`.
        """
        file = self._folder / disk.loadable(path)
        try:
            body = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ParamsError(f"The params {file} are missing.") from None
        content = disk.unpacked(body, str(file))
        if like is not None:
            return trees.fitted(content["leaves"], like, str(file))
        return trees.rebuilt(content["leaves"], content["layout"], str(file))

    def remove(self, path: str) -> None:
        """Remove the file; nothing if it is gone already, or is none of this store."""
        if disk.is_own(path, _SUFFIX):
            (self._folder / path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """The paths of the saves right under a folder, finished or killed.

        `remove` takes each of them. None if there is no such folder.
        """
        return disk.names(self._folder, folder, _SUFFIX)
