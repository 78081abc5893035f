"""One tagged-JSON codec: it refuses values that would not come back unchanged.

Plain JSON stores None, bool, int, float, str, lists and dicts with string keys. Values
that JSON would change are written as an object with a single key that begins with "!":
tuples, other dict keys, NaN and infinities, paths, dataclasses, `Ref`, `Saved`,
`RunPath` and `InMemory`. Decoding builds plain data and these records; it runs no code.
Trees are at most `DEEPEST` containers deep, so that all that is written can be read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import pathlib
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from population.base import hints
from population.base.refusals import (
    DEEPEST,
    leads_out,
    refusal,
    refuse_long,
    refuse_lossy,
    shortly,
    too_deep,
)
from population.base.refusals import is_array as is_array
from population.base.refusals import readable as readable
from population.base.types import InMemory, Ref, RunPath, Saved

_PLAIN = frozenset({type(None), bool, int, str})
_LEAVES = _PLAIN | {float}
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
HELD = '{"!held":'  # The prefix of `InMemory` params in a journal.
_LARGEST = 2**63 - 1  # The largest integer of a journal's column.
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_dumps_sorted = json.JSONEncoder(sort_keys=True).encode


def encode(
    tree: Any, what: str = "value", *, scalars: bool = True, records: bool = False
) -> str:
    """Encode a tree of plain data.

    Args:
        tree: Scalars, strings, lists, tuples, dicts, paths, `Ref`, dataclasses.
        what: The name of the tree in error messages.
        scalars: Whether NumPy and JAX scalars become Python scalars, or are refused.
        records: Whether dataclasses are allowed; `decode` needs their type.

    Returns:
        One line of JSON; equal trees give equal text except for the order of dict keys.

    Raises:
        TypeError: A value cannot be stored, or is nested deeper than `DEEPEST`
            containers; the message names its place.
        ValueError: There is an `InMemory` within the tree.
    """
    if type(tree) is str:
        return _dumps(tree)
    rules = _Rules(scalars, records) if records or not scalars else _USUAL
    return _written(tree, what, rules, _dumps)


def encode_params(params: Any) -> str:
    """Encode the params of a checkpoint, which as a whole may be `InMemory`."""
    if type(params) is InMemory:
        return f'{HELD}["{params.session}",{params.number}]}}'
    return encode(params, "params")


def decode(text: str, like: object = None) -> Any:
    """Decode the output of `encode`; each call returns a new copy.

    Args:
        text: The output of `encode`.
        like: The type of the tree, needed if it is or holds a dataclass; the types of
            nested ones are read from the field annotations.

    Raises:
        ValueError: The text is not the codec's, is nested too deeply for the rest of
            Python's stack, or a dataclass has no known type.
        TypeError: A dataclass does not accept the stored fields.
    """
    try:
        return _unpack(_loads(text), like)
    except RecursionError as error:
        raise ValueError("The text is nested too deeply to be read.") from error


def normalized(tree: Any, what: str) -> Any:
    """Return a copy of the tree as it will come back from the journal."""
    return decode(encode(tree, what))


def digest(tree: Any) -> str:
    """Return a text that is equal for equal trees, in any order of their dict keys.

    Raises:
        TypeError: A value cannot be stored; the message names its place.
        ValueError: There is an `InMemory` within the tree.
    """
    return _written(tree, "meta_params", _IN_ORDER, _dumps_sorted)


def number(value: Any, what: str = "value") -> float | None:
    """Return a reported value as a Python float, or None.

    Waits for the device if the value is still being computed.

    Raises:
        TypeError: `value` is not a real number, or is a bool or a masked array.
        ValueError: `value` is an array of more than one element, or too large.
    """
    kind = type(value)
    if kind is float or value is None:
        return typing.cast("float | None", value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if math.prod(value.shape) != 1:
            raise ValueError(
                f"{what} must be one number, got an array of shape "
                f"{tuple(value.shape)}. Reduce it first, say by its mean."
            )
        refuse_lossy(value, what)
        value = np.asarray(value).reshape(()).item()
        if isinstance(value, np.floating):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{what} must be a real number or None, got {type(value).__name__} "
            f"{shortly(value)}."
        )
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{what} must fit a float, got an int that is too large."
        ) from None


def integer(value: Any, what: str, low: int = 0) -> int:
    """Return a worker id or step as a Python int.

    Raises:
        TypeError: `value` is not an integer; bools and floats are refused.
        ValueError: `value` is below `low`, or too large for the journal.
    """
    kind = type(value)
    if kind is not int:
        if is_array(value):
            refuse_lossy(value, what)
        if kind is bool or isinstance(value, np.bool_) or not _is_index(value):
            raise TypeError(
                f"{what} must be an int, got {kind.__name__} {shortly(value)}."
            )
        value = operator.index(value)
    if value < low:
        raise ValueError(f"{what} must be {low} or more, got {shortly(value)}.")
    if value > _LARGEST:
        raise ValueError(f"{what} must be at most {_LARGEST}, got {shortly(value)}.")
    return typing.cast(int, value)


class _Rules(NamedTuple):
    """The options of `_pack`.

    Attributes:
        scalars: Whether NumPy and JAX scalars become Python scalars.
        records: Whether dataclasses are allowed.
        in_order: Whether to sort the pairs of a dict.
        plain: The types that JSON stores unchanged.
    """

    scalars: bool = True
    records: bool = False
    in_order: bool = False
    plain: frozenset[type] = _PLAIN


_USUAL = _Rules()
_IN_ORDER = _Rules(in_order=True)


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _written(tree: Any, place: str, rules: _Rules, dumps: Callable[[Any], str]) -> str:
    """Write a tree as text; the place of an int that is too long goes in the error."""
    try:
        return dumps(_pack(tree, place, rules, 0))
    except ValueError:
        rules = rules._replace(plain=_PLAIN - {int})
    return dumps(_pack(tree, place, rules, 0))


def _pack(tree: Any, place: str, rules: _Rules, depth: int) -> Any:
    """Convert a tree, nested in `depth` containers, to one that JSON can store."""
    kind = type(tree)
    if kind in rules.plain:
        return tree
    if kind is float:
        return tree if math.isfinite(tree) else {"!float": repr(tree)}
    if kind is dict or kind is list or kind is tuple:
        if depth >= DEEPEST:
            raise TypeError(too_deep(place))
        if kind is dict:
            return _pack_dict(tree, place, rules, depth + 1)
        if rules.plain.issuperset(
            map(type, tree)
        ):  # A state may be a long list of ints.
            return tree if kind is list else {"!tuple": list(tree)}
        depth += 1
        packed = [_pack(x, f"{place}[{i}]", rules, depth) for i, x in enumerate(tree)]
        return packed if kind is list else {"!tuple": packed}
    return _pack_other(tree, place, rules, depth)


def _pack_dict(tree: dict[Any, Any], place: str, rules: _Rules, depth: int) -> Any:
    plain = rules.plain
    if all(type(key) is str and not key.startswith("!") for key in tree):
        return {
            k: v if type(v) in plain else _pack(v, f"{place}[{k!r}]", rules, depth)
            for k, v in tree.items()
        }
    pairs = []
    for key, value in tree.items():
        # The key first: one that passes is shallow enough for the text of the place.
        packed = _pack(key, f"{place} key", rules, depth)
        pairs.append([packed, _pack(value, f"{place}[{key!r}]", rules, depth)])
    if rules.in_order:
        pairs.sort(key=_dumps_sorted)
    return {"!dict": pairs}


def _pack_other(tree: Any, place: str, rules: _Rules, depth: int) -> Any:
    kind = type(tree)
    if kind is int:
        refuse_long(tree, place)
        return tree
    if kind is Ref:
        if type(tree.generation_id) is not str or type(tree.step) is not int:
            raise TypeError(
                f"{place} must be a Ref of a str and an int, got {shortly(tree)}."
            )
        return {"!ref": [tree.generation_id, tree.step]}
    if kind is Saved:
        if type(tree.path) is not str:
            raise TypeError(f"{place} must be a Saved of a str, got {shortly(tree)}.")
        return {"!saved": tree.path}
    if kind is RunPath:
        return {"!own": [*tree]}
    if kind is InMemory:
        raise ValueError(
            f"{place} must be a value, got InMemory(), which stands for all params of "
            "a report. Report InMemory() alone, as params, or a tree without it."
        )
    if isinstance(tree, pathlib.PurePath):
        return {"!path": str(tree)}
    if rules.records and dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        if depth >= DEEPEST:
            raise TypeError(too_deep(place))
        fields = [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree)]
        packed = [(f, _pack(v, f"{place}.{f}", rules, depth + 1)) for f, v in fields]
        return {"!data": dict(packed)}
    if rules.scalars and is_array(tree) and tree.shape == ():
        return _pack_scalar(tree, place, rules, depth)
    raise TypeError(refusal(tree, place))


def _pack_scalar(tree: Any, place: str, rules: _Rules, depth: int) -> Any:
    refuse_lossy(tree, place)
    try:
        value = np.asarray(tree).item()
    except TypeError as error:  # For example, a PRNG key.
        raise TypeError(refusal(tree, place)) from error
    if isinstance(value, np.floating):
        value = float(value)  # `item` of a long double does not return a Python float.
    if is_array(value):
        raise TypeError(refusal(tree, place))
    return _pack(value, place, rules, depth)


def _refuse_literal(name: str) -> NoReturn:
    raise ValueError(f"Not written by this codec: a bare {name}.")


_loads = json.JSONDecoder(parse_constant=_refuse_literal).decode


def _unpack(tree: Any, like: object) -> Any:
    kind = type(tree)
    if kind is list:
        _refuse_infinite(tree)
        (item,) = hints.arguments(like, list, 1)
        return [x if type(x) in _LEAVES else _unpack(x, item) for x in tree]
    if kind is not dict:
        if kind is float:
            _refuse_infinite((tree,))
        return tree
    if len(tree) == 1:
        key, body = next(iter(tree.items()))
        if key.startswith("!"):
            return _unpack_tag(key, body, like)
    _refuse_infinite(tree.values())
    _, item = hints.arguments(like, dict, 2)
    return {
        key: value if type(value) in _LEAVES else _unpack(value, item)
        for key, value in tree.items()
    }


def _refuse_infinite(numbers: Collection[Any]) -> None:
    """Refuse a literal such as 1e999: infinities have a tag."""
    if math.inf in numbers or -math.inf in numbers:
        raise ValueError("Not written by this codec: a number that no float can hold.")


def _unpack_tag(tag: str, body: Any, like: object) -> Any:
    if tag == "!tuple" and type(body) is list:
        kinds = hints.arguments(like, tuple, len(body))
        return tuple([_unpack(x, kind) for x, kind in zip(body, kinds, strict=True)])
    if tag == "!dict" and _is_pairs(body):
        return _unpack_pairs(body, like)
    if tag == "!data" and type(body) is dict:
        return _unpack_dataclass(body, like)
    if tag in ("!ref", "!held") and _is_of(body, (str, int)):
        return Ref(*body) if tag == "!ref" else InMemory(*body)
    if tag == "!own" and _is_of(body, (str, str)):
        if leads_out(body[0]):
            raise ValueError(f"Not a path within a run: {shortly(body[0])}.")
        return RunPath(*body)
    if type(body) is str:
        if tag == "!float" and body in _NON_FINITE:
            return _NON_FINITE[body]
        if tag == "!saved":
            return Saved(body)
        if tag == "!path":
            return pathlib.Path(body)
    raise ValueError(f"Not written by this codec: {tag!r} with {shortly(body)}.")


def _is_of(body: Any, kinds: tuple[type, ...]) -> bool:
    return type(body) is list and tuple(map(type, body)) == kinds


def _is_pairs(body: Any) -> bool:
    return type(body) is list and all(type(x) is list and len(x) == 2 for x in body)


def _unpack_pairs(body: list[list[Any]], like: object) -> dict[Any, Any]:
    key_kind, kind = hints.arguments(like, dict, 2)
    found = {}
    for packed, value in body:
        key = _unpack(packed, key_kind)
        try:
            hash(key)
        except TypeError as error:
            raise ValueError(
                f"Not written by this codec: the key {shortly(key)}."
            ) from error
        found[key] = _unpack(value, kind)
    return found


def _unpack_dataclass(body: Mapping[str, Any], like: object) -> Any:
    for kind in hints.options(like):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            names = {field.name for field in dataclasses.fields(kind)}
            if names == set(body):
                types = typing.get_type_hints(kind)
                return kind(**{k: _unpack(v, types[k]) for k, v in body.items()})
    seen = f"A dataclass with the fields {sorted(body)} is stored here, but its type is"
    if like in (None, Any, object):  # It is in a container of unknown items.
        raise ValueError(
            f"{seen} not known. Types are read from the annotations of fields: make "
            "the whole a dataclass, with a field such as members: list[Member]."
        )
    raise ValueError(
        f"{seen} not the one expected: {like!r}. Correct the annotation of the field "
        "that holds it."
    )
