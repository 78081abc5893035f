"""meta_params as arrays: one column of a fixed dtype for each of their leaves.

A program is compiled once, for dtypes and not for values. So a leaf is a float, an int
or a bool for all members during the whole run, as the run's space or its first
population determines; any other value is a code: its index among the possible values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from population.base import codec
from population.base.refusals import shortly
from population.engines.stacked import conversions
from population.space.choices import Categorical, Ordinal
from population.space.domain import Domain
from population.space.numbers import Integer
from population.space.structure import inside

_BATCH_SIZE = "batch_size"
_WHOLE = "meta_params"  # The name of a tree that is one leaf.
_KEEP = "All members are one program: have mutate_fn keep keys and types."


def mask(batch_size: Any, size: int) -> jax.Array:
    """Return `[size]` bools, True for the first `batch_size`, which may be traced.

    Raises:
        TypeError: `batch_size` is not one number, or `size` is not an int.
        ValueError: `size` is negative.
    """
    is_number = type(batch_size) in (int, float)
    if codec.is_array(batch_size) and batch_size.shape == ():
        is_number = jnp.issubdtype(batch_size.dtype, jnp.number)
    if not is_number:
        raise TypeError(
            f"mask needs one number as batch_size, got {type(batch_size).__name__} "
            f'{shortly(batch_size)}. Call mask(meta_params["batch_size"], size).'
        )
    return jnp.asarray(jnp.arange(codec.integer(size, "size")) < batch_size)


_Named = Mapping[str, Any]


class Columns:
    """The meta_params of all members as arrays of fixed dtypes.

    Args:
        metas: The first population's meta_params, by worker id.
        space: The run's space, or None.
        categories: By name, the values that become codes; they win over the space.
        max_batch: The largest `batch_size`, or the largest ones by name.

    Attributes:
        names: The place of each column's leaf: "learning_rate", "optimizer.beta",
            "layers[0]".
        codes: By name, the possible values of each column that holds codes.

    Raises:
        ValueError: A value does not fit, a name is unknown, or the values or the
            largest batch size of a leaf are not known.
    """

    def __init__(
        self,
        metas: Sequence[Any],
        space: Any,
        categories: Mapping[str, Sequence[Any]] | None,
        max_batch: int | Mapping[str, int] | None,
    ) -> None:
        if not isinstance(categories, Mapping | None):
            raise ValueError(
                "categories must map names to lists of values, got "
                f"{categories!r}, as in {{'activation': ['tanh', 'relu']}}."
            )
        named = dict(categories or {})
        self._marked = _marked(metas[0], space, named)
        leaves: list[_Leaf] = jax.tree.leaves(self._marked)
        _check_known("categories", named, leaves)
        sizes = _sizes(leaves, max_batch)
        self._tree: Any = jax.tree.structure(self._marked)
        members = [self._gathered(meta, w) for w, meta in enumerate(metas)]
        self._columns = [
            _column(leaf, values, named, sizes)
            for leaf, *values in zip(leaves, *members, strict=True)
        ]
        self.names = tuple(column.name for column in self._columns)
        self.codes = {c.name: list(c.values) for c in self._columns if c.values}
        self._first = [column[0] for column in self.stack(metas)]

    def encode(self, meta_params: Any, worker_id: int) -> tuple[np.generic, ...]:
        """Convert meta_params to one scalar of each column's dtype.

        Raises:
            ValueError: A value does not fit; the message names the leaf and the worker.
        """
        found = []
        values = self._gathered(meta_params, worker_id)
        for column, value in zip(self._columns, values, strict=True):
            scalar = column.convert(value)
            if scalar is None:
                name, needed, advice = column.name, column.needed, column.advice
                raise _unfit(name, worker_id, needed, value, advice)
            found.append(scalar)
        return tuple(found)

    def stack(self, metas: Sequence[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Convert the meta_params of workers 0, 1, ... to an array `[N]` per column.

        Raises:
            ValueError: A value does not fit; the message names the leaf and the worker.
        """
        rows = [self.encode(meta, worker_id) for worker_id, meta in enumerate(metas)]
        return tuple(
            np.array([row[i] for row in rows], column.dtype)
            for i, column in enumerate(self._columns)
        )

    @property
    def signature(self) -> Any:
        """A key of all that programs depend on: structure, names and dtypes."""
        dtypes = tuple(column.dtype for column in self._columns)
        return self._tree, self.names, dtypes

    def blank(self, count: int) -> tuple[npt.NDArray[Any], ...]:
        """Return `[count]` zeros for each column."""
        return tuple(np.zeros(count, column.dtype) for column in self._columns)

    def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shape and dtype of one scalar of each column."""
        struct: Any = jax.ShapeDtypeStruct
        return tuple(struct((), column.dtype) for column in self._columns)

    def tree(self, scalars: Sequence[Any]) -> Any:
        """Return the meta_params for the user's functions: a scalar for each leaf.

        Args:
            scalars: One for each column; they may be traced.
        """
        return self._tree.unflatten(scalars)

    def concrete(self) -> Iterator[tuple[Callable[[Sequence[Any]], Any], str]]:
        """Try plain numbers in place of scalars, to find which ones a function needs.

        Yields:
            A function that puts worker 0's first numbers in the place of some scalars,
            and the names of these: each column by itself, then all of them.
        """
        everywhere = range(len(self.names))
        for places in [*([place] for place in everywhere), everywhere]:
            put = {place: self._first[place] for place in places}

            def fix(scalars: Sequence[Any], put: Any = put) -> tuple[Any, ...]:
                return tuple(put.get(i, scalar) for i, scalar in enumerate(scalars))

            yield fix, " or ".join(self.names[place] for place in places)

    def _gathered(self, meta_params: Any, worker_id: int) -> list[Any]:
        """Return the values of the leaves, in the order of the columns.

        Raises:
            ValueError: `meta_params` have another structure than the first member's.
        """
        try:
            return list(self._tree.flatten_up_to(meta_params))
        except ValueError as error:  # Its words are those of JAX.
            wrong = ", ".join(_differences(self._marked, meta_params, ""))
            raise ValueError(
                f"meta_params of worker {worker_id} must have the structure of worker "
                f"0's, got {meta_params!r}: {wrong}. {_KEEP}"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A column's place; `domain` is the space's entry: a domain, constant or None."""

    name: str
    key: Any
    domain: Any


def _marked(
    meta: Any, space: Any, named: _Named, name: str = "", key: Any = None
) -> Any:
    """Return a tree of meta_params with a `_Leaf` in the place of each leaf."""
    chosen = isinstance(space, Domain) or (name or _WHOLE) in named
    if meta is None and not chosen:
        return None
    if chosen or type(meta) not in (dict, list, tuple):  # Chosen values may be trees.
        return _Leaf(name or _WHOLE, key, space)
    known = _parts(space) if type(space) is type(meta) else {}
    parts = {
        k: _marked(part, known.get(k), named, _inside(name, k), k)
        for k, part in _parts(meta).items()
    }
    return parts if type(meta) is dict else type(meta)(parts.values())


def _parts(tree: Any) -> dict[Any, Any]:
    return dict(tree if isinstance(tree, dict) else enumerate(tree))


def _inside(name: str, key: Any) -> str:
    return inside(name if type(key) is str else name or _WHOLE, key)


def _differences(marked: Any, tree: Any, name: str) -> Iterator[str]:
    """Describe the parts of a tree that are missing, additional or of another type."""
    if type(marked) is _Leaf:
        return
    if type(marked) is not type(tree):
        needed = "None" if marked is None else f"a {type(marked).__name__}"
        yield f"{name or 'the whole'} is not {needed}"
    elif marked is not None:
        ours, theirs = _parts(marked), _parts(tree)
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            place = _inside(name, key)
            if key in ours and key in theirs:
                yield from _differences(ours[key], theirs[key], place)
            else:
                yield f"{place} is {'missing' if key in ours else 'additional'}"


class _Column(NamedTuple):
    """The values that a leaf may have.

    `convert` returns None for one that does not fit. `values` are those of a category.
    """

    name: str
    dtype: np.dtype[Any]
    convert: conversions.Convert
    needed: str
    advice: str
    values: Sequence[Any] = ()


def _column(
    leaf: _Leaf, values: Sequence[Any], named: _Named, sizes: _Named
) -> _Column:
    """Return the column of a leaf from its first values, those of workers 0, 1, ..."""
    name = leaf.name
    kind = None if name in named else _kind(leaf, values)
    if kind is None:
        known = _listed(name, named[name]) if name in named else leaf.domain.values
        needed = f"be one of {list(known)}"
        advice = f"Name all its values: categories={{{name!r}: [...]}}."
        codes = conversions.codes(known, np.int32)
        dtype = np.dtype(np.int32)
        return _Column(name, dtype, codes, needed, advice, known)
    if kind is bool:
        codes = conversions.codes((False, True), np.bool_)
        return _Column(name, np.dtype(np.bool_), codes, "be True or False", _KEEP)
    sized = name in sizes or leaf.key == _BATCH_SIZE
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(int if sized else kind))
    if kind is float and not sized:
        return _Column(
            name, dtype, conversions.floats(dtype), f"be a number of {dtype}", _KEEP
        )
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    advice = "Have mutate_fn round it, or begin with floats to have it be a float."
    if sized:
        low, high = 1, _largest(leaf, sizes)
        advice = "Have mutate_fn keep to that, or raise it: max_batch=."
    needed = f"be a whole number from {low} to {high}"
    return _Column(name, dtype, conversions.wholes(dtype, low, high), needed, advice)


def _kind(leaf: _Leaf, values: Sequence[Any]) -> type | None:
    """Return the kind of a leaf: float, int or bool; None for the values of a domain.

    Raises:
        ValueError: It is none of these, and `categories` does not name its values.
    """
    domain = leaf.domain
    if isinstance(domain, (Categorical, Ordinal)):
        return _common(domain.values)
    if isinstance(domain, Domain):
        return int if isinstance(domain, Integer) else float
    kind = _common(values)
    if kind is not None:
        return kind
    odd = next(w for w, v in enumerate(values) if _common([values[0], v]) is None)
    needed = "be a number, or a bool as for all others"
    advice = f"Name all its values, None too: categories={{{leaf.name!r}: [...]}}."
    raise _unfit(leaf.name, odd, needed, values[odd], advice)


def _common(values: Sequence[Any]) -> type | None:
    """Return the common kind of all values: float, int or bool; else None."""
    kinds = {type(conversions.plain(value)) for value in values}
    if kinds == {float, int}:
        return float
    return kinds.pop() if kinds in ({float}, {int}, {bool}) else None


def _listed(name: str, given: Any) -> Sequence[Any]:
    """Return the values of a category, after a check."""
    listed = isinstance(given, (list, tuple)) and len(given) > 0
    if not listed or len({codec.digest(value) for value in given}) < len(given):
        raise ValueError(
            f"categories[{name!r}] must be a list of different values, got {given!r}."
        )
    return tuple(given)


def _sizes(
    leaves: Sequence[_Leaf], max_batch: int | Mapping[str, int] | None
) -> dict[str, Any]:
    """Return the largest batch sizes of `max_batch`, by name of the leaf."""
    if max_batch is None or isinstance(max_batch, Mapping):
        found = {
            name: conversions.plain(size) for name, size in (max_batch or {}).items()
        }
    else:
        names = [leaf.name for leaf in leaves if leaf.key == _BATCH_SIZE]
        found = dict.fromkeys(names or [_BATCH_SIZE], conversions.plain(max_batch))
    _check_known("max_batch", found, leaves)
    return found


def _largest(leaf: _Leaf, sizes: _Named) -> int:
    """Return the largest batch size of a leaf; raise a ValueError if it is unknown."""
    most: Any = leaf.domain
    if leaf.name in sizes:
        most = sizes[leaf.name]
        if type(most) is not int or not 1 <= most <= np.iinfo(np.int32).max:
            raise ValueError(
                f"max_batch must be an int from 1 on, got {most!r} for {leaf.name}."
            )
    elif isinstance(most, (Categorical, Ordinal)):
        most = max(most.values)
    elif isinstance(most, Domain):  # A constant is its own largest value.
        most = getattr(most, "high", None)
    if type(most) in (int, float) and 1 <= most <= np.iinfo(np.int32).max:
        return int(most)
    raise ValueError(
        f"{leaf.name} would change the shapes of batches, and all members are one "
        f"program: its largest value must be known, an int from 1 on, got {most!r}. "
        "Give max_batch=, make all batches of that size, and mask what is too much: "
        f'vectorized.mask(meta_params["{leaf.key}"], size).'
    )


def _check_known(argument: str, named: _Named, leaves: Sequence[_Leaf]) -> None:
    names = [leaf.name for leaf in leaves]
    unknown = [name for name in named if name not in names]
    if unknown:
        raise ValueError(
            f"{argument} must name hyperparameters of {names}, got {unknown}. A nested "
            "one is written 'optimizer.beta' or 'layers[0]'."
        )


def _unfit(name: str, worker: int, needed: str, got: Any, advice: str) -> ValueError:
    """Return the error for a value with which a member cannot be trained."""
    return ValueError(f"{name} of worker {worker} must {needed}, got {got!r}. {advice}")
