"""A params store with a file for each save, in the format of safetensors."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any

from population.base import durable, run_paths
from population.base.errors import LostParamsError
from population.params import disk, folders, tensor_file, trees
from population.params.folder_store import FolderStore


class FileParams(FolderStore):
    """Keeps each tree in a file in the format of safetensors, with a checksum.

    A file with the name of a save is complete, even after a kill during a save. Other
    programs can read it; a tree of dicts, lists and tuples comes back by itself. Files
    of earlier versions, in Flax's msgpack format, are read, too.

    Args:
        folder: The folder for the files; made by the first save.

    Attributes:
        folder: The absolute path of that folder.

    Raises:
        ValueError: `folder` is a URL.
    """

    _suffix = ".safetensors"
    _old_suffixes = (".msgpack",)
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
            LostParamsError: The file is missing, damaged or that of another save.
            ParamsError: It cannot be read.
            MisfitError: It does not fit `like`.
        """
        file = self.folder / disk.loadable(path)
        place, is_old = str(file), path.endswith(self._old_suffixes)
        with disk.reading(place):
            if is_old:
                found = disk.unpacked(folders.content(file), path, place)
                leaves, layout = found["leaves"], found["layout"]
            else:
                leaves, layout = tensor_file.read(file, path)
            if like is None:
                return trees.rebuilt(leaves, layout, place, owned=not is_old)
        return trees.fitted(leaves, like, place, owned=not is_old)

    def is_intact(self, path: str) -> bool:
        """Whether a save is there as it was written; reads it in little memory.

        Raises:
            ParamsError: It cannot be read.
        """
        file = self.folder / disk.loadable(path)
        try:
            with disk.reading(str(file)):
                if path.endswith(self._old_suffixes):
                    disk.unpacked(folders.content(file), path, str(file))
                else:
                    tensor_file.verify(file, path)
        except LostParamsError:
            return False
        return True

    def _write(self, place: pathlib.Path, path: str, tree: Any) -> None:
        tensor_file.write(place, path, tree)

    def _sync(self, place: pathlib.Path) -> None:
        with folders.opened(place) as stream:
            durable.sync_open(stream.fileno())

    def _erase(self, place: pathlib.Path) -> None:
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError, IsADirectoryError
        ):
            place.unlink()
