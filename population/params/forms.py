"""What a file of params says about the structure of a tree, kept for the next save.

It takes longer to find the names and the layout of a small tree than to write it, and
a training loop saves trees of one structure again and again.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from population.base import codec
from population.params import kinds, trees

# Other dtypes are stored as bytes, with their names in the metadata.
NATIVE = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_NUMBERS = (bool, int, float)
_ALIGNED = 64  # JAX uses memory without a copy if it begins at a multiple of this.
_RECENT = 16  # As many structures are kept,
_LEAVES = 200_000  # with as many leaves in all.
_RESERVED = re.compile(r"__+metadata__")  # One more underscore makes it a name.


@dataclasses.dataclass(frozen=True)
class Form:
    """What depends only on the structure of a tree, and on the dtypes of its leaves.

    Attributes:
        order: The leaves that are tensors, in the order of their bytes in the file.
        numbers: The other leaves and their names: Python's numbers.
        layout: The tree's `trees.layout`.
        end: The end of the header, after what each save has of its own.
    """

    order: tuple[int, ...]
    numbers: tuple[tuple[int, str], ...]
    layout: str | None
    end: str


def recent(leaves: Sequence[Any], structure: Any) -> Form | None:
    """Return the form of a tree if one of its structure was saved not long ago.

    Such a tree may be saved, too: it was checked, and has no functions.
    """
    key = _key(leaves, structure)
    return None if key is None else _recent.get(key)


def of(tree: Any, leaves: Sequence[Any], structure: Any) -> Form:
    """Return the form of a tree that `checks.check` has accepted.

    Args:
        tree: The tree.
        leaves: Its leaves.
        structure: Its structure, as `jax.tree.flatten` returns it.
    """
    key = _key(leaves, structure)
    found = None if key is None else _recent.get(key)
    if found is None:
        pairs = jax.tree_util.tree_leaves_with_path(tree)
        found = _made(tree, pairs)
        if key is not None and all(map(_is_usual, (path for path, _ in pairs))):
            _recent.put(key, found)
    return found


def stored_shape(leaf: Any) -> tuple[str, tuple[int, ...]] | None:
    """Return the dtype and shape that the file has for a leaf; None for a number."""
    if isinstance(leaf, (str, bytes)):
        return type(leaf).__name__, (len(as_bytes(leaf)),)
    if not codec.is_array(leaf):
        return None
    if kinds.is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.dtype(leaf.dtype).name, tuple(leaf.shape)


def as_bytes(leaf: str | bytes) -> bytes:
    """Return the bytes of a text or of bytes."""
    return leaf.encode() if isinstance(leaf, str) else leaf


def name_in_file(name: str) -> str:
    """Return the name of a tensor: `__metadata__` has another meaning in the format."""
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def name_in_tree(name: str) -> str:
    """Return the path of a leaf within the tree, by the name of its tensor."""
    return name[1:] if _RESERVED.fullmatch(name) else name


def _made(tree: Any, pairs: Sequence[tuple[Any, Any]]) -> Form:
    """Make the form of a tree with these leaves and their paths."""
    numbers, tensors = [], []
    special: dict[str, list[Any]] = {}
    scalars: list[str] = []
    for index, (path, leaf) in enumerate(pairs):
        if kinds.is_function(leaf):
            continue
        name, stored = jax.tree_util.keystr(path), stored_shape(leaf)
        if stored is None:
            numbers.append((index, name))
            continue
        dtype, shape = stored
        if dtype in ("str", "bytes"):
            size, special[name] = shape[0], [dtype]
        else:
            size = math.prod(shape) * np.dtype(_dtype(leaf)).itemsize
        native = NATIVE.get(dtype)
        if native is None:
            special.setdefault(name, [dtype, list(shape)])
            native, shape = "U8", (size,)
        if isinstance(leaf, np.generic):
            scalars.append(name)
        tensors.append((index, name, native, shape, size))
    # Thus each begins at a multiple of its itemsize, and large ones of 64 bytes.
    tensors.sort(key=lambda tensor: -_divisor(tensor[-1]))
    own, parts, offset = trees.layout(tree), [], 0
    for key, value in {"layout": own, "special": special, "scalars": scalars}.items():
        if value:
            text = value if isinstance(value, str) else json.dumps(value)
            parts.append(f',"{key}":{json.dumps(text)}')
    parts.append("}")
    for _, name, native, shape, size in tensors:
        parts.append(
            f',{json.dumps(name_in_file(name))}:{{"dtype":"{native}",'
            f'"shape":{json.dumps(shape)},"data_offsets":[{offset},{offset + size}]}}'
        )
        offset += size
    order = tuple(index for index, *_ in tensors)
    return Form(order, tuple(numbers), own, "".join(parts) + "}")


def _dtype(leaf: Any) -> Any:
    return np.uint32 if kinds.is_key(leaf) else leaf.dtype


def _divisor(size: int) -> int:
    """Return the largest power of two up to 64 that divides a number of bytes."""
    return math.gcd(size, _ALIGNED)


def _is_usual(path: tuple[Any, ...]) -> bool:
    """Whether equal structures have equal paths: keys 1 and True are equal, too."""
    return all(
        isinstance(key, (SequenceKey, GetAttrKey))
        or (isinstance(key, DictKey) and type(key.key) is str)
        for key in path
    )


def _key(leaves: Sequence[Any], structure: Any) -> Any:
    """Return a key for what a form depends on; None for trees whose form is not kept.

    Two trees with equal keys pass the same checks.
    """
    traits: list[Any] = [structure]
    is_alone = jax.process_count() == 1
    for leaf in leaves:
        kind = type(leaf)
        if kind in _NUMBERS:
            if not kinds.is_storable(leaf):
                return None
            traits.append(kind)
        elif kind is np.ndarray or isinstance(leaf, np.generic):
            traits.append((kind, leaf.dtype, leaf.shape))
        elif isinstance(leaf, jax.Array) and (is_alone or leaf.is_fully_addressable):
            traits.append((kind, leaf.dtype, leaf.shape))
        else:
            return None
    return tuple(traits)


class _Recent:
    """The forms of the structures that were saved last."""

    def __init__(self) -> None:
        self._forms: collections.OrderedDict[Any, Form] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Form | None:
        """Return a form; None if there is none, or if keys cannot be compared."""
        try:
            with self._lock:
                found = self._forms.get(key)
                if found is not None:
                    self._forms.move_to_end(key)
                return found
        except (TypeError, ValueError):  # Of a node's static data.
            return None

    def put(self, key: Any, form: Form) -> None:
        """Keep a form in place of the oldest one."""
        try:
            with self._lock:
                self._forms[key] = form
                while len(self._forms) > _RECENT or self._leaves() > _LEAVES:
                    self._forms.popitem(last=False)
        except (TypeError, ValueError):
            return

    def _leaves(self) -> int:
        return sum(map(len, self._forms))


_recent = _Recent()
