"""Params in files: one for each save, in Flax's msgpack form."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import jax

from population.base import durable, run_paths
from population.params import disk, folders, marks, trees

_SUFFIX = ".msgpack"


class FileParams:
    """Keeps each tree in one file of Flax's msgpack form.

    A file is written beside its place, synced and then renamed: after a kill, even in
    the middle of a save, what has the name of a save is whole.

    Args:
        folder: Where the files go; made when it is first needed.

    Attributes:
        folder: The same, as a whole path.

    Raises:
        ValueError: If the folder is a URL.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if run_paths.is_url(os.fspath(folder)):
            raise ValueError(
                f"folder must be a local folder, got {os.fspath(folder)!r}. For a "
                f"bucket use OrbaxParams({folders.whole_url(os.fspath(folder))!r})."
            )
        self.folder = run_paths.absolute_folder(folder)
        self._watch = folders.Watch()

    def save(self, name: str, tree: Any) -> str:
        """Write the leaves of any pytree, each under its path within the tree.

        Returns:
            The path of the file within the folder; no two saves share one.

        Raises:
            TypeError: If a leaf is neither an array, a scalar, a string nor a function.
            ParamsError: If a link leads from the file's place out of the folder.
            OSError: If it cannot be written; nothing that looks like a save is left.
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
        self._watch.look(self.folder)
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
            ParamsError: If the file cannot be read, is damaged or another save's, or
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
        """Remove the file; nothing if it is gone already, or is none of this store.

        A link that lies in its place is removed, never what it leads to.
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
        """The paths of the saves right under a folder, finished or killed.

        `remove` takes each of them. None if there is no such folder, or if a link to it
        leads out of the store.
        """
        return disk.names(self.folder, folder, _SUFFIX, whole=True)

    def claim(self, run: str, text: str) -> None:
        """Note in which journal a run is recorded, in place of what was noted before.

        Args:
            run: The run's token.
            text: What describes the journal; kept as it is.

        Raises:
            ValueError: If `run` is no token.
            ParamsError: If a link leads from the place of the note out of the store.
            OSError: If it cannot be written.
        """
        marks.claim(self.folder, run, text)

    def claimed(self, run: str) -> str | None:
        """The text that `claim` noted last for a run.

        None if there is none that can be read, or if the folder is a copy of the one
        where it was noted.

        Raises:
            ValueError: If `run` is no token.
        """
        return marks.claimed(self.folder, run)
