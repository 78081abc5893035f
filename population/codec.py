"""One tagged-JSON codec: what may be stored, and how it comes back unchanged.

Plain JSON carries None, bool, int, float, str, lists and dicts with string keys. What
JSON would change is written as an object with a single key that begins with "!":
tuples, other dict keys, NaN and infinities, paths, `Ref`, `Saved`, `RunPath`, `Held`,
dataclasses.
Decoding builds plain data and the records named here; it never imports or runs code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from population.base import Held, Ref, RunPath, Saved

_PLAIN = frozenset({type(None), bool, int, str})
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
HELD = '{"!held":'  # How held params begin in a journal.
_LARGEST = 2**63 - 1  # What a journal's column holds.
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(
    tree: Any, what: str = "value", *, scalars: bool = True, records: bool = False
) -> str:
    """Encode a tree of plain data.

    Args:
        tree: Scalars, strings, lists, tuples, dicts, paths, `Ref`, dataclasses.
        what: How an error calls the tree.
        scalars: Whether NumPy and JAX scalars become Python scalars, or are refused.
        records: Whether dataclasses are allowed; to decode them takes their type.

    Returns:
        One line of JSON; equal trees give equal text but for the order of dict keys.

    Raises:
        TypeError: If something cannot be stored; the message names its place.
    """
    kind = type(tree)
    if kind is str or kind is int:
        return _dumps(tree)
    return _dumps(_pack(tree, what, _Rules(scalars, records)))


def encode_params(params: Any) -> str:
    """The same for the params of a checkpoint, which as a whole may be `Held`."""
    if type(params) is Held:
        return f'{HELD}["{params.session}",{params.number}]}}'
    return encode(params, "params")


def decode(text: str, like: object = None) -> Any:
    """Decode what `encode` wrote; each call gives a fresh copy.

    Args:
        text: The output of `encode`.
        like: The type of the tree, needed where it is or holds a dataclass; the types
            of nested ones are read from the field annotations.

    Raises:
        ValueError: If the text is not the codec's, or a dataclass has no known type.
    """
    return _unpack(json.loads(text), like)


def normalized(tree: Any, what: str) -> Any:
    """The tree as it will come back from the journal, as a copy of its own."""
    return decode(encode(tree, what))


def digest(tree: Any) -> str:
    """The same text for equal trees, whatever the order of their dict keys."""
    return json.dumps(_pack(tree, "meta_params", _Rules(in_order=True)), sort_keys=True)


def number(value: Any, what: str = "value") -> float | None:
    """A reported value as a Python float, or None.

    Waits for the device if the value is still being computed.

    Raises:
        TypeError: If it is no real number; a bool is none.
        ValueError: If it is an array of more than one element.
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
        value = np.asarray(value).reshape(()).item()
        if isinstance(value, np.floating):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{what} must be a real number or None, got {type(value).__name__} "
            f"{_shortly(value)}."
        )
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{what} must fit a float, got an int that is too large."
        ) from None


def integer(value: Any, what: str, low: int = 0) -> int:
    """A worker id or step as a Python int.

    Raises:
        TypeError: If it is no integer; bools and floats are none.
        ValueError: If it is below `low`.
    """
    kind = type(value)
    if kind is not int:
        if kind is bool or isinstance(value, np.bool_) or not _is_index(value):
            raise TypeError(
                f"{what} must be an int, got {kind.__name__} {_shortly(value)}."
            )
        value = operator.index(value)
    if value < low:
        raise ValueError(f"{what} must be {low} or more, got {value}.")
    if value > _LARGEST:
        raise ValueError(f"{what} must be at most {_LARGEST}, got {value}.")
    return typing.cast(int, value)


def readable(text: str) -> str:
    """Text that a journal can keep: what is no Unicode is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or an array scalar, of NumPy or of JAX."""
    typed = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    return typed and not isinstance(leaf, type)  # np.float32 itself is none.


class _Rules(NamedTuple):
    """What `_pack` allows, and whether it sorts what has no order."""

    scalars: bool = True
    records: bool = False
    in_order: bool = False


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _pack(tree: Any, place: str, rules: _Rules) -> Any:
    kind = type(tree)
    if kind in _PLAIN:
        return tree
    if kind is float:
        return tree if math.isfinite(tree) else {"!float": repr(tree)}
    if kind is dict:
        return _pack_dict(tree, place, rules)
    if kind is list:
        if _PLAIN.issuperset(map(type, tree)):  # A state may be a long list of ints.
            return tree
        return [_pack(x, f"{place}[{i}]", rules) for i, x in enumerate(tree)]
    if kind is tuple:
        return {
            "!tuple": [_pack(x, f"{place}[{i}]", rules) for i, x in enumerate(tree)]
        }
    if kind is Ref:
        return {"!ref": [tree.generation_id, tree.step]}
    if kind is Saved:
        return {"!saved": tree.path}
    if kind is RunPath:
        return {"!own": [*tree]}
    if kind is Held:
        raise ValueError(
            f"{place} must be a value, got Held(), which stands for all params of a "
            "report. Report Held() alone, as params, or a tree without it."
        )
    if isinstance(tree, pathlib.PurePath):
        return {"!path": str(tree)}
    if rules.records and dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree)]
        return {
            "!data": {f: _pack(getattr(tree, f), f"{place}.{f}", rules) for f in fields}
        }
    if rules.scalars and is_array(tree) and tree.shape == ():
        return _pack_scalar(tree, place, rules)
    raise TypeError(_refusal(tree, place))


def _pack_dict(tree: dict[Any, Any], place: str, rules: _Rules) -> Any:
    packed = [(k, _pack(v, f"{place}[{k!r}]", rules)) for k, v in tree.items()]
    if all(type(key) is str and not key.startswith("!") for key, _ in packed):
        return dict(packed)
    pairs = [[_pack(k, f"{place} key", rules), v] for k, v in packed]
    return {"!dict": sorted(pairs, key=json.dumps) if rules.in_order else pairs}


def _pack_scalar(tree: Any, place: str, rules: _Rules) -> Any:
    try:
        value = np.asarray(tree).item()
    except TypeError as error:  # A PRNG key, say.
        raise TypeError(_refusal(tree, place)) from error
    if isinstance(value, np.floating):
        value = float(value)  # The long floats have no item of Python's own.
    if is_array(value):
        raise TypeError(_refusal(tree, place))
    return _pack(value, place, rules)


def _refusal(tree: Any, place: str) -> str:
    if is_array(tree) and tree.shape != ():
        return (
            f"{place} is an array of shape {tuple(tree.shape)}; arrays are allowed in "
            "params only. Write it as a list of numbers."
        )
    if isinstance(tree, (dict, list, tuple, str, int, float)):
        base = next(
            t for t in (dict, list, tuple, str, int, float) if isinstance(tree, t)
        )
        return (
            f"{place} is a {type(tree).__name__}, which would come back as a plain "
            f"{base.__name__}. Convert it with {base.__name__}(...) first."
        )
    return (
        f"{place} cannot be stored: got {type(tree).__name__} {_shortly(tree)}. Use "
        "None, bool, int, float, str, lists, tuples and dicts."
    )


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unpack(tree: Any, like: object) -> Any:
    if type(tree) is list:
        item = _arguments(like, list, 1)[0]
        return [_unpack(x, item) for x in tree]
    if type(tree) is not dict:
        return tree
    if len(tree) == 1:
        key, body = next(iter(tree.items()))
        if key.startswith("!"):
            return _unpack_tag(key, body, like)
    item = _arguments(like, dict, 2)[1]
    return {key: _unpack(value, item) for key, value in tree.items()}


def _unpack_tag(tag: str, body: Any, like: object) -> Any:
    if tag == "!ref":
        return Ref(body[0], body[1])
    if tag == "!tuple":
        kinds = _tuple_kinds(like, len(body))
        return tuple(_unpack(x, kind) for x, kind in zip(body, kinds, strict=True))
    if tag == "!dict":
        key_kind, kind = _arguments(like, dict, 2)
        return {_unpack(k, key_kind): _unpack(v, kind) for k, v in body}
    if tag == "!float":
        return _NON_FINITE[body]
    if tag == "!saved":
        return Saved(body)
    if tag == "!own":
        return _run_path(*body)
    if tag == "!held":
        return Held(*body)
    if tag == "!path":
        return pathlib.Path(body)
    if tag == "!data":
        return _unpack_dataclass(body, like)
    raise ValueError(f"Not a tag of this codec: {tag!r}.")


def _run_path(path: Any, kind: Any) -> RunPath:
    inside = type(path) is str and not path.startswith("/")
    if not inside or ".." in path.split("/") or kind not in ("text", "path"):
        raise ValueError(f"Not a path of a run: {path!r}, {kind!r}.")
    return RunPath(path, kind)


def _unpack_dataclass(body: Mapping[str, Any], like: object) -> Any:
    options = typing.get_args(like) if _is_union(like) else (like,)
    for kind in options:
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            names = {field.name for field in dataclasses.fields(kind)}
            if names == set(body):
                hints = typing.get_type_hints(kind)
                return kind(**{k: _unpack(v, hints[k]) for k, v in body.items()})
    raise ValueError(
        f"A dataclass with the fields {sorted(body)} is stored here, but its type is "
        f"not known: {like!r} was expected. Annotate the field that holds it."
    )


def _is_union(like: object) -> bool:
    return isinstance(like, types.UnionType) or typing.get_origin(like) is typing.Union


def _arguments(like: object, container: type, count: int) -> tuple[object, ...]:
    for kind in typing.get_args(like) if _is_union(like) else (like,):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(container, origin):
            return typing.get_args(kind)
    return (None,) * count


def _tuple_kinds(like: object, length: int) -> tuple[object, ...]:
    kinds = _arguments(like, tuple, length)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return (kinds[0],) * length
    return kinds if len(kinds) == length else (None,) * length
