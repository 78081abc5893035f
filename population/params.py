"""Where the arrays of params are kept: in memory, or a file for each save.

A store has three methods: `save`, `load`, `remove` (`population.base.ParamsStore`).
"""

from __future__ import annotations

import itertools
import os
import pathlib
import secrets
import struct
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from population import codec
from population.errors import ParamsError

_SUFFIX = ".msgpack"
_MAGIC = b"POPP"
_PLAIN_LEAVES = (bool, int, float, str, bytes)


class MemoryParams:
    """Keeps copies on the host, for runs that end with the process."""

    def __init__(self) -> None:
        self._trees: dict[str, Any] = {}
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._trees)

    def save(self, name: str, tree: Any) -> str:
        """Keep a copy; the caller may donate or change the original afterwards."""
        check(tree, plain=False)
        path = f"{name}-{next(self._count)}"
        kinds = jax.tree.map(_kind, tree)
        self._trees[path] = (jax.tree.map(_to_host, tree), kinds)
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """A copy of the tree, JAX arrays where they were.

        Raises:
            ParamsError: If it was removed, or does not fit `like`.
        """
        try:
            tree, kinds = self._trees[path]
        except KeyError:
            raise ParamsError(
                f"The params {path!r} are not in memory any more."
            ) from None
        if like is not None:
            return _fitted(_by_path(tree), like, path)
        return jax.tree.map(_as_kind, tree, kinds)

    def remove(self, path: str) -> None:
        """Forget a tree; nothing if it is gone already."""
        self._trees.pop(path, None)


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
            TypeError: If a leaf is neither an array, a scalar nor a string.
            OSError: If it cannot be written; nothing that looks like a save is left.
        """
        check(tree, plain=False)
        if ".." in pathlib.PurePath(name).parts or os.path.isabs(name):
            raise ValueError(f"name must stay within the folder, got {name!r}.")
        path = f"{name}-{secrets.token_hex(4)}{_SUFFIX}"
        leaves = _by_path(jax.tree.map(_to_host, tree))
        content = {"layout": _layout(tree), "leaves": leaves}
        body = serialization.msgpack_serialize(content)
        _write(self._folder / path, _MAGIC + struct.pack(">I", zlib.crc32(body)), body)
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
        file = self._folder / path
        layout, leaves = _read(file)
        if like is not None:
            return _fitted(leaves, like, str(file))
        if layout is None:
            raise ParamsError(
                f"The params {file} hold more than dicts, lists and tuples. Pass a "
                "tree of their structure: worker.restore(init), or "
                "controller.load(checkpoint, like)."
            )
        return jax.tree_util.tree_map_with_path(
            lambda place, kind: _as_kind(leaves[jax.tree_util.keystr(place)], kind),
            codec.decode(layout),
        )

    def remove(self, path: str) -> None:
        """Remove the file; nothing if it is gone already."""
        file = self._folder / path
        file.unlink(missing_ok=True)


def check(tree: Any, *, plain: bool) -> None:
    """Refuse params that a store cannot keep, or cannot give back.

    Args:
        tree: The params.
        plain: Whether they must be dicts, lists and tuples of arrays.

    Raises:
        TypeError: Naming the place of what does not fit.
    """
    for place, leaf in _by_path(tree).items():
        if not _is_storable(leaf):
            what = getattr(leaf, "dtype", "")
            raise TypeError(
                f"params{place} cannot be stored: got {type(leaf).__name__} {what}. "
                "Params are a path, or a tree of arrays, numbers and strings."
            )
    if plain and _layout(tree) is None:
        raise TypeError(
            "params must be dicts, lists and tuples of arrays to come back after a "
            f"restart, got {type(tree).__name__}. Report them with "
            "flax.serialization.to_state_dict(params), save them yourself and report "
            "the path, or use controller.worker(): its restore(init) rebuilds any tree."
        )


def _layout(tree: Any) -> str | None:
    """The containers of a tree with its kinds of leaves; None if there are others."""
    try:
        text = codec.encode(jax.tree.map(_kind, tree))
        codec.decode(text)  # Refuses dataclasses: their types are not in the text.
    except (TypeError, ValueError):
        return None
    return text


def _kind(leaf: Any) -> str:
    if isinstance(leaf, jax.Array):
        if _is_key(leaf):
            return f"key:{jax.random.key_impl(leaf)}"
        return "jax"
    if isinstance(leaf, np.generic):
        return "scalar"
    return "numpy" if isinstance(leaf, np.ndarray) else "plain"


def _as_kind(leaf: Any, kind: str) -> Any:
    if kind.startswith("key:"):
        return jax.random.wrap_key_data(jnp.array(leaf), impl=kind[4:])
    if kind == "jax":
        return jnp.array(leaf)
    if kind == "scalar":
        return np.asarray(leaf)[()]
    return np.array(leaf) if kind == "numpy" else leaf


def _to_host(leaf: Any) -> Any:
    """A copy that no donated buffer can take away."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, np.generic) or not codec.is_array(leaf):
        return leaf
    copy = np.array(leaf)
    return copy.astype(copy.dtype.newbyteorder("="), copy=False)


def _is_storable(leaf: Any) -> bool:
    if not codec.is_array(leaf):
        limited = type(leaf) is not int or -(2**63) <= leaf < 2**64
        return type(leaf) in _PLAIN_LEAVES and limited
    return _is_key(leaf) or _is_numeric(leaf.dtype)


def _is_numeric(dtype: Any) -> bool:
    # Longer floats than 64 bits mean different things on different machines.
    long = np.dtype(dtype).char in "gG"
    return not long and (jnp.issubdtype(dtype, np.number) or dtype == np.bool_)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _fitted(leaves: dict[str, Any], like: Any, path: str) -> Any:
    """The tree `like` with these leaves, in the kinds, dtypes and weak types there."""
    models = _by_path(like)
    if models.keys() != leaves.keys():
        differ = sorted(models.keys() ^ leaves.keys())
        raise ParamsError(
            f"The params {path} do not fit the given tree: only one of the two has "
            f"{', '.join(differ[:3])}{' ...' if len(differ) > 3 else ''}. Was the "
            "model or the optimiser changed since they were saved?"
        )
    fit = [
        _fit_leaf(leaves[place], model, f"{path}, {place}")
        for place, model in models.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), fit)


def _fit_leaf(leaf: Any, model: Any, place: str) -> Any:
    try:
        return _converted(leaf, model)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParamsError(
            f"The params {place}, do not fit the given tree: {error}."
        ) from error


def _converted(leaf: Any, model: Any) -> Any:
    """The leaf as a compiled function would not tell it from the model."""
    if _is_key(model):
        return jax.random.wrap_key_data(
            jnp.array(leaf), impl=jax.random.key_impl(model)
        )
    if isinstance(leaf, (str, bytes)) or isinstance(model, (str, bytes)):
        if type(leaf) is not type(model):
            raise TypeError(
                f"{type(leaf).__name__} was saved where the tree has "
                f"{type(model).__name__}"
            )
        return leaf
    array = np.asarray(leaf)
    if array.shape != np.shape(model):
        raise ValueError(
            f"an array of shape {array.shape} was saved where the tree has "
            f"{np.shape(model)}"
        )
    if jnp.issubdtype(array.dtype, np.inexact) and _is_whole(model):
        raise TypeError("fractions were saved where the tree has whole numbers")
    if np.iscomplexobj(array) and not np.iscomplexobj(model):
        raise TypeError("complex numbers were saved where the tree has real ones")
    if not codec.is_array(model):
        return array.item()
    if isinstance(model, np.generic):
        return array.astype(model.dtype)[()]
    if not isinstance(model, jax.Array):
        return np.array(array, dtype=model.dtype)
    found = jnp.array(array, dtype=model.dtype)
    if model.weak_type:
        found = model.at[...].set(found)  # Stays weak: no retrace.
    return jax.device_put(found, model.sharding) if model.committed else found


def _is_whole(model: Any) -> bool:
    dtype = model.dtype if codec.is_array(model) else np.asarray(model).dtype
    return bool(jnp.issubdtype(dtype, np.integer) or dtype == np.bool_)


def _read(file: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    """The layout and the leaves of a file, if they are as they were written."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise ParamsError(f"The params {file} are missing.") from None
    start = len(_MAGIC) + 4
    intact = content.startswith(_MAGIC) and len(content) >= start
    if intact:
        (checksum,) = struct.unpack_from(">I", content, len(_MAGIC))
        intact = zlib.crc32(memoryview(content)[start:]) == checksum
    if not intact:
        raise ParamsError(
            f"The params {file} are damaged: their checksum does not fit. Go on from "
            "an older checkpoint."
        )
    found = serialization.msgpack_restore(content[start:])
    return found["layout"], found["leaves"]


def _write(file: pathlib.Path, *parts: bytes) -> None:
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
        _sync_folder(folder)
    except BaseException:
        draft.unlink(missing_ok=True)
        file.unlink(missing_ok=True)  # Its name is its own: no other save is lost.
        raise


def _sync_folder(folder: pathlib.Path) -> None:
    """Make the new name itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
