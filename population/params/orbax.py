"""Params by Orbax: sharded arrays, each part written and read by itself.

A save is a folder: what Orbax wrote, and a head that is written last. The head holds
the layout of the tree, the leaves that are no JAX arrays, and the size and checksum of
each file. Without a whole head there is no save.
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
from population.params import disk, folders, marks, trees

_SUFFIX = ".orbax"
_HEAD = "head.msgpack"
_ARRAYS = "arrays"
_CHUNK = 1 << 20


class OrbaxParams:
    """Keeps each tree in a folder, its JAX arrays as Orbax writes them.

    Sharded arrays are never gathered on one device: each device's part is written from
    there, and read to where `like` has it. On a disk a save is written beside its
    place, synced and then renamed; in a bucket, which cannot rename, its head is
    written last. A kill leaves the whole of it, or what `names` lists and `load`
    refuses.

    A save has a cost of some 20 ms and a dozen files, whatever its size: small trees
    are saved sooner by `FileParams`.

    Args:
        directory: A local folder, made when it is first needed, or the URL of a
            bucket (`gs://bucket/folder`).

    Attributes:
        in_bucket: Whether it is the URL of a bucket.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        path = os.fspath(directory)
        self.in_bucket = run_paths.is_url(path)
        place = (
            folders.whole_url(path)
            if self.in_bucket
            else run_paths.absolute_folder(path)
        )
        self._root = epath.Path(place)
        self._watch = folders.Watch()

    def save(self, name: str, tree: Any) -> str:
        """Write any pytree, and return when all of it is written.

        Returns:
            The path of the save within the directory; no two saves share one.

        Raises:
            TypeError: If a leaf is neither an array, a scalar, a string nor a function,
                or lies on the devices of other processes.
            ParamsError: If a link leads from the save's place out of the directory.
            OSError: If it cannot be written; nothing that looks like a save is left.
        """
        trees.check(tree, plain=False)
        path = disk.new_path(name, _SUFFIX)
        if self.in_bucket:
            place = self._root / path
            with _undone(place):
                self._write(place, path, tree)
            return path
        parent, _, own_name = path.rpartition("/")
        folder = folders.to_write_in(self._folder, parent)
        durable.make_folder(folder)
        self._watch.look(self._folder)
        place = epath.Path(folder / own_name)
        draft = place.parent / disk.draft_name(place.name)
        with _undone(draft, place):
            self._write(draft, path, tree)
            os.replace(draft, place)
            durable.sync(folder)
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """Read a tree back.

        Args:
            path: What `save` returned.
            like: A tree of the wanted structure and kinds of leaves, each with the
                sharding that it has; `jax.ShapeDtypeStruct` with a sharding costs no
                memory. None: dicts, lists and tuples of arrays come back, each array
                whole on one device.

        Raises:
            ParamsError: If the save cannot be read, is damaged or another one, or does
                not fit `like`.
        """
        place = self._root / disk.loadable(path)
        head = self._head(place, path)
        arrays, others = head["arrays"], head["leaves"]
        models: Mapping[str, Any] = {}
        if like is not None:
            models = trees.matched([*arrays, *others], like, str(place))
        self._check(place, head["files"])

        def look_again() -> None:  # Was it removed, or changed, meanwhile?
            self._check(place, self._head(place, path)["files"])

        with disk.reading(str(place), look_again):
            leaves = {**others, **_read(self._real(place), arrays, models)}
            if like is None:
                return trees.rebuilt(leaves, head["layout"], str(place))
        return trees.fitted(leaves, like, str(place))

    def remove(self, path: str) -> None:
        """Remove the save; nothing if it is gone already, or is none of this store.

        A link that lies in its place, or within, is removed, never what it leads to.
        """
        if not disk.is_own(path, _SUFFIX):
            return
        if self.in_bucket:
            _erase(self._root / path)
            return
        folder, name = disk.split(self._folder, path)
        if folder is not None:
            _erase(epath.Path(folder / name))

    def names(self, folder: str) -> list[str]:
        """The paths of the saves right under a folder, finished or killed.

        `remove` takes each of them. None if there is no such folder, or if a link to it
        leads out of the store.
        """
        if not self.in_bucket:
            return disk.names(self._folder, folder, _SUFFIX, whole=False)
        try:
            found = [entry.name for entry in (self._root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return disk.own(folder, found, _SUFFIX)

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
        marks.claim(self._root, run, text, in_bucket=self.in_bucket)

    def claimed(self, run: str) -> str | None:
        """The text that `claim` noted last for a run.

        None if there is none that can be read, or if the directory is a copy of the one
        where it was noted.

        Raises:
            ValueError: If `run` is no token.
        """
        return marks.claimed(self._root, run, in_bucket=self.in_bucket)

    def _real(self, place: epath.Path) -> epath.Path:
        """A place as TensorStore may have it, which takes `link/..` for nothing."""
        return place if self.in_bucket else epath.Path(os.path.realpath(place))

    @property
    def _folder(self) -> pathlib.Path:
        return pathlib.Path(self._root)

    def _write(self, place: epath.Path, path: str, tree: Any) -> None:
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
                    leaf: trees.to_host(leaves[leaf])
                    for leaf in leaves.keys() - set(chosen)
                },
                "arrays": {
                    leaf: {"name": name, "shape": list(array.shape)}
                    for leaf, (name, array) in zip(chosen, arrays.items(), strict=True)
                },
                "files": self._sealed(place),
            }
        )
        if self.in_bucket:
            (place / _HEAD).write_bytes(b"".join(parts))
        else:
            disk.write(pathlib.Path(place / _HEAD), *parts)
            durable.sync(pathlib.Path(place))

    def _sealed(self, place: epath.Path) -> dict[str, list[int]]:
        """What is to be found at each file of a save, once the disk has it."""
        entries = list(_below(place))
        if not self.in_bucket:
            for entry in entries:
                durable.sync(pathlib.Path(entry))
        files = [entry for entry in entries if entry.is_file()]
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
        with folders.opened(file) as stream:
            return stream.read()

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
        """The size of a file, and its checksum; a bucket has checksums of its own."""
        if self.in_bucket:
            return [file.stat().length]
        size = checksum = 0
        with folders.opened(file) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                checksum = zlib.crc32(chunk, checksum)
        return [size, checksum]


@contextlib.contextmanager
def _undone(*places: epath.Path) -> Iterator[None]:
    """Leave nothing at these places if what is done there fails."""
    try:
        yield
    except BaseException:
        for place in places:
            _erase(place)
        raise


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in folder.iterdir():
        yield entry
        if entry.is_dir():
            yield from _below(entry)


def _erase(place: epath.Path) -> None:
    """Remove a folder, head first: what is half removed is no save."""
    if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
        place.unlink(missing_ok=True)
        return
    with contextlib.suppress(IsADirectoryError):
        (place / _HEAD).unlink(missing_ok=True)
    while place.exists():
        # Another process may be removing it, too.
        with contextlib.suppress(FileNotFoundError):
            place.rmtree()


def _is_for_orbax(leaf: Any) -> bool:
    """Whether Orbax writes it; NumPy's arrays are on the host already."""
    if not isinstance(leaf, jax.Array):
        return False
    return leaf.size > 0 and (trees.is_key(leaf) or _knows(leaf.dtype.name))


@functools.cache
def _knows(dtype: str) -> bool:
    try:
        tensorstore.dtype(dtype)
    except (TypeError, ValueError):
        return False
    return True


def _numbers(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if trees.is_key(leaf) else leaf


def _write_arrays(place: epath.Path, arrays: dict[str, jax.Array]) -> None:
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(place, args=ocp.args.PyTreeSave(arrays))
    except ValueError as error:  # All that TensorStore has to say.
        raise OSError(
            f"The params {place} cannot be written: {error}. Is the disk full?"
        ) from error


def _read(
    place: epath.Path, arrays: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, Any]:
    """The arrays, each part on the device where the model has it, else on the host."""
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
    sharding = trees.sharding_of(model)
    numbers = _numbers(model) if trees.is_key(model) else model
    if sharding is None or tuple(shape) != np.shape(numbers):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=tuple(shape))
