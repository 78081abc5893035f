"""What goes into the journal comes back unchanged, or is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.base import codec
from population.base.types import Ref, Saved

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)
)
paths = st.lists(st.text("ab .!", min_size=1), min_size=1, max_size=3).map(
    lambda parts: pathlib.Path(*parts)
)
refs = st.builds(Ref, st.text(max_size=8), st.integers(min_value=0))
leaves = st.one_of(scalars, paths, refs, st.builds(Saved, st.text(max_size=8)))
tags = st.sampled_from(["!tuple", "!dict", "!float", "!ref", "!saved", "!", "!x"])
keys = st.one_of(scalars, tags, refs, st.tuples(st.integers(), st.text(max_size=3)))


def _larger(smaller: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(smaller, max_size=4),
        st.lists(smaller, max_size=4).map(tuple),
        st.dictionaries(keys, smaller, max_size=4),
    )


trees = st.recursive(leaves, _larger, max_leaves=12)


@dataclasses.dataclass(frozen=True)
class Inner:
    """A record within a record."""

    ref: Ref
    weights: tuple[float, ...] = ()


@dataclasses.dataclass
class Outer:
    """A state with records at every place that an annotation can name."""

    one: Inner
    many: list[Inner]
    by_id: dict[int, Inner]
    deep: dict[str, list[Inner | None]]
    pair: tuple[Inner, int]
    row: tuple[Inner, ...]
    maybe: Inner | None = None
    abstract: Sequence[Inner] = ()
    mapping: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    free: Any = None


inners = st.builds(Inner, refs, st.lists(st.floats(), max_size=2).map(tuple))
outers = st.builds(
    Outer,
    inners,
    st.lists(inners, max_size=2),
    st.dictionaries(st.integers(), inners, max_size=2),
    st.dictionaries(tags, st.lists(st.one_of(st.none(), inners), max_size=2)),
    st.tuples(inners, st.integers()),
    st.lists(inners, max_size=2).map(tuple),
    st.one_of(st.none(), inners),
    st.lists(inners, max_size=2),
    st.dictionaries(st.text(max_size=3), inners, max_size=2),
    trees,
)


class Point(NamedTuple):
    """A tuple whose name would be lost."""

    x: int


@given(trees)
def test_plain_data_comes_back_as_it_went_in(tree: Any) -> None:
    """Tuples stay tuples, keys keep their types, NaN and infinities survive."""
    assert repr(codec.decode(codec.encode(tree))) == repr(tree)


@given(trees)
def test_a_line_of_plain_json_is_written(tree: Any) -> None:
    """Any program can read it: strict JSON without line breaks or bare NaN."""
    text = codec.encode(tree)
    assert "\n" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


@given(outers)
def test_dataclasses_come_back_by_the_type_of_the_whole(outer: Outer) -> None:
    """Nested records are rebuilt from the annotations of their fields."""
    assert repr(codec.decode(codec.encode(outer, records=True), Outer)) == repr(outer)


@given(trees)
def test_every_decoding_is_a_fresh_copy(tree: Any) -> None:
    """A receiver that changes its copy changes no other copy."""
    tree = [tree, []]
    text = codec.encode(tree)
    codec.decode(text)[1].append("changed")
    assert codec.decode(text)[1] == []


@given(st.dictionaries(keys, scalars, min_size=2, max_size=5))
def test_equal_trees_have_equal_digests(tree: dict[Any, Any]) -> None:
    """The order of a dict's keys does not matter, whatever type they have."""
    backwards = dict(reversed(tree.items()))
    assert codec.digest([tree]) == codec.digest([backwards])


def test_different_trees_have_different_digests() -> None:
    """A list is not a tuple, and a string is not a number."""
    different: list[Any] = [[1], (1,), {"1": 1}, {1: 1}, ["1"], [1.5], [True], None]
    assert len({codec.digest(tree) for tree in different}) == len(different)


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.str_("adam"), "adam"),
        (np.array(2.5), 2.5),
        (jnp.float32(0.5), 0.5),
        (jnp.int32(7), 7),
        (jnp.bool_(False), False),
        (jnp.bfloat16(1.5), 1.5),
        (np.longdouble(1.5), 1.5),
        (np.float32("nan"), math.nan),
    ],
)
def test_array_scalars_become_python_scalars(scalar: Any, plain: object) -> None:
    """A NumPy or JAX scalar comes back as bool, int, float or str."""
    back = codec.normalized({"x": [scalar]}, "meta_params")["x"][0]
    assert (type(back), repr(back)) == (type(plain), repr(plain))


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        (object(), "meta_params"),
        ({"a": [1, {"b": object()}]}, r"meta_params\['a'\]\[1\]\['b'\]"),
        ((1, {2: {3}}), r"meta_params\[1\]\[2\]"),
        ({"f": lambda: None}, r"meta_params\['f'\]"),
        ({"z": 1j}, r"meta_params\['z'\]"),
        ({"b": b"bytes"}, r"meta_params\['b'\]"),
        ({(1, frozenset()): 0}, "meta_params key"),
        ({"w": np.zeros(3)}, r"meta_params\['w'\] is an array of shape \(3,\)"),
        ({"w": jnp.zeros((2, 1))}, r"meta_params\['w'\] is an array of shape \(2, 1\)"),
        ({"p": Point(1)}, r"meta_params\['p'\] is a Point.*plain tuple"),
        ({"k": jax.random.key(0)}, r"meta_params\['k'\]"),
        ({"t": np.datetime64("2020-01-01")}, r"meta_params\['t'\]"),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_place(tree: Any, place: str) -> None:
    """The error has the path in the tree."""
    with pytest.raises(TypeError, match=place):
        codec.encode(tree, "meta_params")


def test_array_scalars_are_refused_where_they_must_stay_arrays() -> None:
    """In params a 0-d array is an array, and goes through the params store."""
    with pytest.raises(TypeError, match="params"):
        codec.encode({"x": np.float32(1.0)}, "params", scalars=False)


@pytest.mark.parametrize(
    "text", ['{"!unknown":1}', '{"!data":{"a":1}}', "not json", '{"!float":1']
)
def test_text_of_another_codec_is_refused(text: str) -> None:
    """Decoding never guesses."""
    with pytest.raises(ValueError, match=r"."):
        codec.decode(text)


def test_a_dataclass_of_another_type_is_refused() -> None:
    """A record is not read as a class with other fields."""
    with pytest.raises(ValueError, match=r"\['ref', 'weights'\].*Correct the annot"):
        codec.decode(codec.encode(Inner(Ref("g", 1)), records=True), Outer)


@pytest.mark.parametrize("like", [None, list, list[Any], list[object]])
def test_a_dataclass_in_a_bare_list_is_told_where_its_type_belongs(like: Any) -> None:
    """There is no field to annotate, so the message does not speak of one."""
    text = codec.encode([Inner(Ref("g", 1))], records=True)
    with pytest.raises(ValueError, match=r"with a field such as members: list\[Member"):
        codec.decode(text, like)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array([[2.0]]), 2.0),
        (jnp.bfloat16(1.5), 1.5),
        (jnp.array([3]), 3.0),
        (jnp.inf, math.inf),
        (None, None),
    ],
)
def test_a_value_becomes_a_float(given_value: Any, expected: float | None) -> None:
    """Any kind of real number may be reported."""
    number = codec.number(given_value)
    assert (type(number), number) == (type(expected), expected)


@pytest.mark.parametrize(
    "given_value", ["1", True, np.bool_(True), 1j, np.complex64(1), [1.0], b"1"]
)
def test_what_is_no_real_number_is_no_value(given_value: Any) -> None:
    """Strings, bools, complex numbers and lists are refused as values."""
    with pytest.raises(TypeError, match="value must be a real number"):
        codec.number(given_value)


@pytest.mark.parametrize("array", [np.zeros(2), np.zeros(0), jnp.zeros((2, 2))])
def test_an_array_of_other_than_one_element_is_no_value(array: Any) -> None:
    """The message has the shape, and advises to reduce it."""
    with pytest.raises(ValueError, match="one number, got an array of shape"):
        codec.number(array)


@pytest.mark.parametrize("given_step", [3, np.int64(3), np.array(3), jnp.int32(3)])
def test_a_step_may_be_any_kind_of_integer(given_step: Any) -> None:
    """A step that a jitted loop counts is valid, too."""
    step = codec.integer(given_step, "step")
    assert (type(step), step) == (int, 3)


@pytest.mark.parametrize("given_step", [3.0, True, np.bool_(True), "3", None])
def test_what_is_no_integer_is_no_step(given_step: Any) -> None:
    """A float or a bool is refused."""
    with pytest.raises(TypeError, match="step must be an int"):
        codec.integer(given_step, "step")
