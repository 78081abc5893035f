"""A params store with a file for each save, in Flax's msgpack format."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import jax

from population.base import durable, run_paths
from population.params import disk, folders, marks, trees

_SUFFIX = ".msgpack"


class FileParams:
    """Keeps each tree in a file in Flax's msgpack format.

    A file is written under another name in the same folder, synced and then renamed. So
    a file with the name of a save is complete, even after a kill in the middle of one.

    Args:
        folder: Where the files go; made when it is first needed.

    Attributes:
        folder: The absolute path of that folder.

    Raises:
        ValueError: `folder` is a URL.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if run_paths.is_url(os.fspath(folder)):
            raise ValueError(
                f"folder must be a local folder, got {os.fspath(folder)!r}. For a "
                f"bucket use OrbaxParams({folders.whole_url(os.fspath(folder))!r})."
            )
        self.folder = run_paths.absolute_folder(folder)
        self._watch = folders.FolderWatch()

    def save(self, name: str, tree: Any) -> str:
        """Write the leaves of any pytree, each under its path within the tree.

        Returns:
            The path of the file within the folder; each save has a different one.

        Raises:
            TypeError: A leaf is neither an array, a scalar, a string nor a function.
            ParamsError: The place of the file is behind a link out of the folder.
            OSError: The file cannot be written; nothing that looks like a save is left.
        """
        trees.check(tree, plain=False)
        path = disk.new_path(name, _SUFFIX)
        parent, _, own_name = path.rpartition("/")
        file = folders.to_write_in(self.folder, parent) / own_name
        leaves = trees.by_path(jax.tree.map(trees.to_host, tree))
        parts = disk.packed(
            {"path": path, "layout": trees.layout(tree), "leaves": leaves}
        )
        durable.make_folder(file.parent)
        self._watch.check(self.folder)
        draft = file.with_name(disk.draft_name(file.name))
        try:
            disk.write(draft, *parts)
            os.replace(draft, file)
            durable.sync(file.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            file.unlink(missing_ok=True)  # No other save has this name.
            raise
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """Read a tree back.

        Args:
            path: What `save` returned.
            like: A tree of the wanted structure and kinds of leaves. None: dicts, lists
                and tuples of arrays come back as they were.

        Raises:
            ParamsError: The file cannot be read, is damaged or that of another save, or
                does not fit `like`.
        """
        file = self.folder / disk.loadable(path)
        with disk.reading(str(file)):
            with folders.opened(file) as stream:
                body = stream.read()
            content = disk.unpacked(body, path, str(file))
            if like is None:
                return trees.rebuilt(content["leaves"], content["layout"], str(file))
        return trees.fitted(content["leaves"], like, str(file))

    def remove(self, path: str) -> None:
        """Remove a file of this store; nothing happens if there is none.

        If a link is in its place, the link is removed, and not what it leads to.
        """
        if not disk.is_own(path, _SUFFIX):
            return
        folder, name = disk.split(self.folder, path)
        if folder is not None:
            with contextlib.suppress(
                FileNotFoundError, NotADirectoryError, IsADirectoryError
            ):
                (folder / name).unlink()

    def names(self, folder: str) -> list[str]:
        """The paths of the saves in a folder, those that a kill cut short included.

        Each of them can be given to `remove`. Empty if there is no such folder, or if a
        link to it leads out of the store.
        """
        return disk.names(self.folder, folder, _SUFFIX, whole=True)

    def claim(self, run: str, text: str) -> None:
        """Note in which journal a run is recorded; this replaces an earlier note.

        Args:
            run: The run's token.
            text: A description of the journal, stored as it is.

        Raises:
            ValueError: `run` is not a token.
            ParamsError: The place of the note is behind a link out of the store.
            OSError: The note cannot be written.
        """
        marks.claim(self.folder, run, text)

    def claimed(self, run: str) -> str | None:
        """The text that `claim` last noted for a run, or None.

        None if there is no note that can be read, or if the folder is a copy of the one
        in which it was made.

        Raises:
            ValueError: `run` is not a token.
        """
        return marks.claimed(self.folder, run)
