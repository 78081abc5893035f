"""Ways to write a large state to a disk and to read it: ours, and others."""

from __future__ import annotations

import abc
import functools
import importlib
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from population.params import FileParams

RAW, OURS, SAFETENSORS, ORBAX = "raw", "FileParams", "safetensors", "Orbax"
NAMES = (RAW, OURS, SAFETENSORS, ORBAX)
SEED = 0
Tree = dict[str, Any]


class Saver(abc.ABC):
    """Writes one tree at a time, and reads it.

    Args:
        folder: An existing folder for its files, of its own.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    @abc.abstractmethod
    def save(self, tree: Tree) -> None:
        """Write a tree to a new place."""

    @abc.abstractmethod
    def load(self, like: Any = None) -> object:
        """Read the tree that `save` has written last.

        Args:
            like: A tree of its structure, for those that can restore one.
        """

    def sync(self) -> None:
        """Wait until the last save is on the disk."""
        for place, _, names in os.walk(self.folder):
            for path in (place, *(os.path.join(place, name) for name in names)):
                _sync(path)

    def remove(self) -> None:
        """Remove the last save."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()


class Raw(Saver):
    """The bytes of the arrays, one after the other."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._size = 0

    def save(self, tree: Tree) -> None:
        """Write the bytes of all arrays to a file."""
        self._size = 0
        with (self.folder / "raw").open("xb", buffering=0) as stream:
            for leaf in tree.values():
                rest = np.asarray(leaf).data.cast("B")
                self._size += len(rest)
                while rest:
                    rest = rest[stream.write(rest) :]

    def load(self, like: Any = None) -> object:
        """Read the bytes into a new buffer."""
        del like
        found = np.empty(self._size, np.uint8)
        rest = found.data
        with (self.folder / "raw").open("rb", buffering=0) as stream:
            while rest:
                rest = rest[stream.readinto(rest) :]
        return found


class Ours(Saver):
    """`FileParams`. If it has no method `sync`, `save` itself waits for the disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._store = FileParams(folder)
        self._path = ""

    def save(self, tree: Tree) -> None:
        """Save the tree."""
        self._path = self._store.save("0/1", tree)

    def load(self, like: Any = None) -> object:
        """Load it."""
        return self._store.load(self._path, like)

    def sync(self) -> None:
        """Let the store wait for the disk."""
        sync = getattr(self._store, "sync", None)
        if sync is not None:
            sync([self._path])

    def remove(self) -> None:
        """Let the store remove the save."""
        self._store.remove(self._path)


class Safetensors(Saver):
    """The functions of safetensors for arrays of NumPy."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._numpy: Any = importlib.import_module("safetensors.numpy")
        self._file = folder / "arrays.safetensors"

    def save(self, tree: Tree) -> None:
        """Write a file."""
        arrays = {name: np.asarray(leaf) for name, leaf in tree.items()}
        self._numpy.save_file(arrays, self._file)

    def load(self, like: Any = None) -> object:
        """Read it into arrays of NumPy."""
        del like
        found: object = self._numpy.load_file(self._file)
        return found


class Orbax(Saver):
    """A PyTreeCheckpointer of Orbax with its default arguments."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._orbax: Any = importlib.import_module("orbax.checkpoint")
        self._place = folder / "tree"
        self._names: list[str] = []

    def save(self, tree: Tree) -> None:
        """Write a folder of files."""
        self._names = list(tree)
        with self._orbax.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(self._place, args=self._orbax.args.PyTreeSave(tree))

    def load(self, like: Any = None) -> object:
        """Read it into arrays of NumPy."""
        del like
        kind = self._orbax.RestoreArgs(restore_type=np.ndarray)
        wanted = self._orbax.args.PyTreeRestore(
            item=dict.fromkeys(self._names, 0),
            restore_args=dict.fromkeys(self._names, kind),
        )
        with self._orbax.PyTreeCheckpointer() as checkpointer:
            found: object = checkpointer.restore(self._place, args=wanted)
        return found


_SAVERS: dict[str, Callable[[pathlib.Path], Saver]] = {
    RAW: Raw,
    OURS: Ours,
    SAFETENSORS: Safetensors,
    ORBAX: Orbax,
}


def is_installed(name: str) -> bool:
    """Whether the package that a saver needs is installed."""
    module = {SAFETENSORS: "safetensors", ORBAX: "orbax"}.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def make(name: str, folder: pathlib.Path) -> Saver:
    """A saver, in a new folder within this one."""
    own = folder / name
    own.mkdir(parents=True)
    return _SAVERS[name](own)


def state(arrays: int, floats: int) -> Tree:
    """Arrays of JAX with so many random numbers each."""
    # Compiled: arrays of NumPy could still be copied, or in use, at the end of this.
    draw = jax.jit(functools.partial(jax.random.normal, shape=(floats,)))
    keys = jax.random.split(jax.random.key(SEED), arrays)
    tree = {f"layer {number:02}": draw(key) for number, key in enumerate(keys)}
    jax.block_until_ready(tree)
    return tree


def _sync(path: str | os.PathLike[str]) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
