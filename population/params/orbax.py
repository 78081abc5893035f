"""A params store that uses Orbax: each shard of an array is written and read by itself.

A save is a folder: the files of Orbax, and a head that is written last. The head holds
the layout of the tree, the leaves that are not JAX arrays, and the size and checksum of
each file. A folder without a complete head is not a save.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath

from population.base import durable, run_paths
from population.base.refusals import shortly
from population.params import disk, folders, kinds, trees
from population.params.folder_store import FolderStore

_HEAD = "head.msgpack"
_ARRAYS = "arrays"
_CHUNK = 1 << 20


class OrbaxParams(FolderStore):
    """Keeps each tree in a folder, its JAX arrays in the format of Orbax.

    Sharded arrays are never gathered on one device: each shard is written from its own
    device, and read to the device where `like` has it. On a disk a save is written
    under another name and then renamed; in a bucket, which cannot rename, its
    head is written last. So after a kill a save is complete, or `names` lists it and
    `load` refuses it.

    A save costs some 20 ms and a dozen files, whatever its size: `FileParams` saves
    small trees faster.

    Args:
        directory: A local folder, made when it is first needed, or the URL of a
            bucket (`gs://bucket/folder`).

    Attributes:
        in_bucket: Whether `directory` is the URL of a bucket.
    """

    _suffix = ".orbax"
    _saves_are_files = False

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        path = os.fspath(directory)
        self.in_bucket = run_paths.is_url(path)
        place = (
            folders.whole_url(path)
            if self.in_bucket
            else run_paths.absolute_folder(path)
        )
        super().__init__(epath.Path(place))

    def load(self, path: str, like: Any = None) -> Any:
        """Read a tree back.

        Args:
            path: The path that `save` has returned.
            like: A tree of the wanted structure, kinds of leaves and shardings; a
                `jax.ShapeDtypeStruct` with a sharding takes no memory. None: dicts,
                lists and tuples of arrays come back, each array whole on one device.

        Raises:
            ParamsError: The save cannot be read, is damaged or another one, or does not
                fit `like`.
        """
        place = self._root / disk.loadable(path)
        head = self._head(place, path)
        arrays, others = head["arrays"], head["leaves"]
        models: Mapping[str, Any] = {}
        if like is not None:
            models = trees.matched([*arrays, *others], like, str(place))
        self._check(place, head["files"])

        def look_again() -> None:  # It may have been removed or changed meanwhile.
            self._check(place, self._head(place, path)["files"])

        with disk.reading(str(place), look_again):
            leaves = {**others, **_read(self._real(place), arrays, models)}
            if like is None:
                return trees.rebuilt(leaves, head["layout"], str(place))
        return trees.fitted(leaves, like, str(place))

    def _real(self, place: epath.Path) -> epath.Path:
        """Return the path without links, as TensorStore removes `link/..`."""
        return place if self.in_bucket else epath.Path(os.path.realpath(place))

    def _write(self, place: Any, path: str, tree: Any) -> None:
        place = epath.Path(place)
        leaves = trees.by_path(tree)
        chosen = [leaf for leaf in leaves if _is_for_orbax(leaves[leaf])]
        arrays = {str(i): _numbers(leaves[leaf]) for i, leaf in enumerate(chosen)}
        place.mkdir(parents=True)
        if arrays:
            _write_arrays(place / _ARRAYS, arrays)
        parts = disk.packed(
            {
                "path": path,
                "layout": trees.layout(tree),
                "leaves": {
                    leaf: kinds.to_host(leaves[leaf])
                    for leaf in leaves.keys() - set(chosen)
                },
                "arrays": {
                    leaf: {"name": name, "shape": list(array.shape)}
                    for leaf, (name, array) in zip(chosen, arrays.items(), strict=True)
                },
                "files": self._traits_of_all(place),
            }
        )
        if self.in_bucket:
            (place / _HEAD).write_bytes(b"".join(parts))
        else:
            disk.write(pathlib.Path(place / _HEAD), *parts)

    def _sync(self, place: pathlib.Path) -> None:
        """Sync all files and folders of a save; those removed meanwhile are skipped."""
        for entry in (*_below(epath.Path(place)), place):
            with contextlib.suppress(FileNotFoundError):
                durable.sync(pathlib.Path(entry))

    def _erase(self, place: Any) -> None:
        """Remove a folder, its head first, so that a rest of it is not a save."""
        place = epath.Path(place)
        is_there = os.path.lexists(place)
        if os.path.islink(place) or (is_there and not os.path.isdir(place)):
            place.unlink(missing_ok=True)
            return
        with contextlib.suppress(IsADirectoryError):
            (place / _HEAD).unlink(missing_ok=True)
        while place.exists():
            # Another process may also be removing it.
            with contextlib.suppress(FileNotFoundError):
                place.rmtree()

    def _traits_of_all(self, place: epath.Path) -> dict[str, list[int]]:
        """Return the size and checksum of each file of a save."""
        files = [entry for entry in _below(place) if entry.is_file()]
        return {str(file.relative_to(place)): self._traits(file) for file in files}

    def _head(self, place: epath.Path, path: str) -> dict[str, Any]:
        with disk.reading(str(place)):
            try:
                content = self._content(place / _HEAD)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not place.is_dir():
                    raise
                raise disk.cut_off(str(place)) from error
            head = disk.unpacked(content, path, str(place))
            if not (type(head["arrays"]) is type(head["files"]) is dict):
                raise TypeError("its head does not say which arrays and files it has")
            for leaf, entry in head["arrays"].items():
                kinds = type(leaf), type(entry["name"]), type(entry["shape"])
                if kinds != (str, str, list):
                    raise TypeError(f"its head has an array {shortly(entry)}")
            return head

    def _content(self, file: epath.Path) -> bytes:
        if self.in_bucket:
            found: bytes = file.read_bytes()
            return found
        return folders.content(file)

    def _check(self, place: epath.Path, files: Mapping[str, list[int]]) -> None:
        """Refuse a save whose files are not as they were written."""
        with disk.reading(str(place)):
            try:
                intact = all(self._traits(place / f) == files[f] for f in files)
            except (FileNotFoundError, NotADirectoryError):
                intact = False
            if not intact:
                raise disk.damaged(str(place))

    def _traits(self, file: epath.Path) -> list[int]:
        """Return a file's size and checksum; in a bucket, only the size."""
        if self.in_bucket:
            return [file.stat().length]
        size = checksum = 0
        with folders.opened(file) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                checksum = zlib.crc32(chunk, checksum)
        return [size, checksum]


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in folder.iterdir():
        yield entry
        if entry.is_dir():
            yield from _below(entry)


def _is_for_orbax(leaf: Any) -> bool:
    """Whether Orbax writes a leaf; NumPy's arrays go into the head."""
    if not isinstance(leaf, jax.Array):
        return False
    return leaf.size > 0 and (kinds.is_key(leaf) or _knows(leaf.dtype.name))


@functools.cache
def _knows(dtype: str) -> bool:
    try:
        tensorstore.dtype(dtype)
    except (TypeError, ValueError):
        return False
    return True


def _numbers(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if kinds.is_key(leaf) else leaf


def _write_arrays(place: epath.Path, arrays: dict[str, jax.Array]) -> None:
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(place, args=ocp.args.PyTreeSave(arrays))
    except ValueError as error:  # TensorStore raises nothing more precise.
        raise OSError(
            f"The params {place} cannot be written: {error}. Free some space if the "
            "disk is full, and try again."
        ) from error


def _read(
    place: epath.Path, arrays: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the arrays, each shard to the device where the model has it, or the host."""
    if not arrays:
        return {}
    wanted = {
        entry["name"]: _wanted(entry["shape"], models.get(leaf))
        for leaf, entry in arrays.items()
    }
    asked = ocp.args.PyTreeRestore(item=dict.fromkeys(wanted, 0), restore_args=wanted)
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.restore(place / _ARRAYS, args=asked)
    return {leaf: found[entry["name"]] for leaf, entry in arrays.items()}


def _wanted(shape: list[int], model: Any) -> ocp.RestoreArgs:
    sharding = kinds.sharding_of(model)
    numbers = _numbers(model) if kinds.is_key(model) else model
    if sharding is None or tuple(shape) != np.shape(numbers):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=tuple(shape))
