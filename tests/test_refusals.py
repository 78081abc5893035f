"""What no journal can store is refused by name, with advice."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from population.base import codec
from population.base.refusals import DEEPEST
from population.base.types import InMemory, Ref, Saved
from population.params import FileParams, MemoryParams, checks

MA: Any = np.ma  # Older releases of NumPy do not declare its types.


@dataclasses.dataclass
class Node:
    """A record that may contain another one."""

    below: Node | None = None


def nested(wrap: Callable[[Any], Any], depth: int, leaf: Any = 0) -> Any:
    """A leaf within this many containers."""
    tree = leaf
    for _ in range(depth):
        tree = wrap(tree)
    return tree


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "dict": lambda x: {"a": x},
    "other keys": lambda x: {1: x},
    "tuple and value": lambda x: (0.5, x),
    "record": Node,
}
KEYS: dict[str, Callable[[Any], Any]] = {
    "tuples as a key": lambda depth: {nested(WRAPS["tuple"], depth - 1): 1},
    "pairs as a key": lambda depth: {nested(lambda x: (x, 0.5), depth - 1): {}},
}
MAKES: dict[str, Callable[[int], Any]] = {
    name: functools.partial(nested, wrap) for name, wrap in WRAPS.items()
}
MAKES["record"] = lambda depth: nested(Node, depth, None)
MAKES |= KEYS


def at_depth(frames: int, call: Callable[[], Any]) -> Any:
    """The result of a call from this deep in the stack."""
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1  # type: ignore[assignment]
    return _down(frames - count, call)


def _down(frames: int, call: Callable[[], Any]) -> Any:
    return call() if frames <= 0 else _down(frames - 1, call)


@pytest.mark.parametrize("name", MAKES)
def test_what_is_accepted_comes_back_wherever_it_is_read(name: str) -> None:
    """The deepest tree is encoded and decoded 500 frames deep, with Python's limit."""
    tree = MAKES[name](DEEPEST)
    like = Node if name == "record" else None

    def round_trip() -> Any:
        text = codec.encode(tree, records=True)
        if name != "record":
            codec.digest(tree)
        return codec.decode(text, like)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert repr(at_depth(500, round_trip)) == repr(tree)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("depth", [DEEPEST + 1, 5 * DEEPEST, 100_000])
def test_a_deeper_tree_is_refused_by_its_place(name: str, depth: int) -> None:
    """The message has the limit, for any depth, in a readable line."""
    if name in KEYS:
        depth = min(depth, 5000)  # Python itself fails for a key that is much deeper.
    tree = MAKES[name](depth)
    with pytest.raises(TypeError, match=r"state.* nested too deeply.*100") as raised:
        codec.encode(tree, "state", records=True)
    assert len(str(raised.value)) < 300
    if name != "record":
        with pytest.raises(TypeError, match=r"meta_params.* nested too deeply"):
            codec.digest(tree)


def itself() -> list[Any]:
    """Containers that contain themselves."""
    alone: list[Any] = []
    alone.append(alone)
    table: dict[str, Any] = {}
    table["a"] = [1, (table, table)]
    boxed = np.empty((), dtype=object)
    boxed[()] = [boxed]
    record = Node()
    record.below = record
    return [alone, table, boxed, record]


@pytest.mark.parametrize("tree", itself(), ids=["list", "dict", "array", "record"])
def test_a_container_within_itself_is_refused(tree: Any) -> None:
    """The error says so, before Python's recursion limit is reached."""
    with pytest.raises(TypeError, match="none within itself"):
        codec.encode(tree, "state", records=True)


def test_params_that_are_too_deep_are_refused_before_jax_fails() -> None:
    """JAX fails with an internal error for such trees; a store says what is wrong."""
    store = MemoryParams()
    for tree in (nested(WRAPS["list"], 100_000), itself()[0], itself()[1]):
        with pytest.raises(TypeError, match=r"params.* nested too deeply"):
            store.save("g/1", tree)
        with pytest.raises(TypeError, match=r"params.* nested too deeply"):
            checks.check(tree, plain=True)


def test_an_older_text_that_is_deeper_is_read_as_far_as_python_can() -> None:
    """Trees of earlier versions are read; what Python cannot read is damage."""
    assert codec.decode("[" * 200 + "]" * 200) == nested(WRAPS["list"], 199, [])
    for opened, closed in (("[", "]"), ('{"!tuple":[', "]}"), ('{"a":', "}")):
        text = opened * 100_000 + "1" + closed * 100_000
        with pytest.raises(ValueError, match="nested too deeply"):
            codec.decode(text)


MASKED = [
    np.ma.masked,
    MA.array(1.5),
    MA.array(1.5, mask=True),
    MA.array([1.5], mask=[True]),
    MA.array([1.5, 2.0], mask=[True, False]),
]
TIMES = [
    (np.datetime64("2020-01-01"), "datetime64"),
    (np.datetime64(1, "ns"), "datetime64"),
    (np.array(["2020-01-01"], "M8[s]"), "datetime64"),
    (np.timedelta64(3, "s"), "timedelta64"),
    (np.timedelta64(3, "ns"), "timedelta64"),
    (np.array(3, "m8[ns]"), "timedelta64"),
]
FIELDS = [
    np.zeros((), dtype=[("a", int), ("b", float)]),
    np.zeros((), dtype=[("a", int)])[()],
    np.zeros(1, dtype=[("a", int)]),
]
LOSSY = [
    *[pytest.param(x, r"masked array.*\.filled\(", id=repr(x)[:20]) for x in MASKED],
    *[pytest.param(x, f"{n}.*seconds", id=f"{x!r}"[:30]) for x, n in TIMES],
    *[pytest.param(x, "structured dtype.*dict", id=f"{x!r}"[:30]) for x in FIELDS],
]


@pytest.mark.parametrize(("array", "advice"), LOSSY)
def test_arrays_that_would_lose_their_meaning_are_refused(
    array: Any, advice: str
) -> None:
    """A mask, a unit or field names are never lost without an error."""
    with pytest.raises(TypeError, match=rf"metrics\['a'\].*{advice}"):
        codec.encode({"a": array}, "metrics")
    with pytest.raises(TypeError, match=rf"params\['a'\].*{advice}"):
        MemoryParams().save("g/1", {"a": array})
    if array.size == 1:
        with pytest.raises(TypeError, match=f"value.*{advice}"):
            codec.number(array)
        with pytest.raises(TypeError, match="step"):
            codec.integer(array, "step")


@pytest.mark.parametrize(
    "name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]
)
def test_small_numbers_are_numbers(name: str) -> None:
    """NumPy calls their kind `V`, like that of structured ones."""
    for one in (getattr(ml_dtypes, name)(1), getattr(jnp, name)(1)):
        assert codec.decode(codec.encode([one])) == [1]
        assert codec.number(one) == 1.0


def test_an_int_with_too_many_digits_is_named_by_its_place(
    tmp_path: Any,
) -> None:
    """Python refuses to write it; the message has the path and says what to do."""
    long = 10**5000
    for tree, place in (
        (long, "state"),
        ([1, long], r"state\[1\]"),
        ({"a": (0.5, {"b": long})}, r"state\['a'\]\[1\]\['b'\]"),
        ({1: {2: long}}, r"state\[1\]\[2\]"),
        ({long: 1}, "state key"),
    ):
        with pytest.raises(TypeError, match=f"^{place} is an int of more than"):
            codec.encode(tree, "state")
        place = place.replace("state", "meta_params")
        with pytest.raises(TypeError, match=f"^{place} is an int of more than"):
            codec.digest(tree)
    for number in (long, -long):
        with pytest.raises(ValueError, match="step must be"):
            codec.integer(number, "step")
    with pytest.raises(TypeError, match="cannot be stored"):
        FileParams(tmp_path).save("g/1", {"a": long})


@pytest.mark.parametrize(
    "tree",
    [Ref("g", 1.5), Ref(1, 1), Ref("g", [1]), Saved(3), Saved(None)],  # type: ignore[arg-type]
)
def test_records_that_would_not_come_back_are_refused(tree: Any) -> None:
    """A text that cannot be decoded is never written."""
    with pytest.raises(TypeError, match=r"state\[0\] must be a (Ref|Saved) of"):
        codec.encode([tree], "state")


def test_a_refusal_survives_a_value_that_cannot_be_printed() -> None:
    """The message does not depend on the value's `__repr__`."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    deep = {frozenset([nested(WRAPS["tuple"], 5000)])}
    for value in (Broken(), {Broken()}, deep):
        with pytest.raises(TypeError, match=re.escape("state[0] cannot be stored")):
            codec.encode([value], "state")


@pytest.mark.parametrize("text", ["\udcff", "a\ud800b", "\udc00\ud800", "\x00", "é"])
def test_any_text_comes_back(text: str) -> None:
    """Lone surrogates too, which a file name may have: the line is ASCII."""
    tree = {text: [text, (text, {1: text})], "p": Saved(text)}
    line = codec.encode(tree)
    assert line.isascii()
    assert codec.decode(line) == tree
    assert codec.digest(tree).isascii()
    assert codec.digest(text) != codec.digest(text + text)


def test_held_params_stand_alone() -> None:
    """The message names the mistake."""
    with pytest.raises(ValueError, match=r"state\[0\].*Report InMemory\(\) alone"):
        codec.encode([InMemory()], "state")
