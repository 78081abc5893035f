"""meta_params as columns of fixed dtypes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.engines.stacked.columns import Columns, mask
from population.space import (
    Categorical,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Uniform,
    sample,
)

SPACE = {
    "rate": LogUniform(1e-5, 1e-1),
    "optimizer": {"beta": OneMinusLogUniform(0.5, 0.999), "nesterov": True},
    "layers": [Integer(1, 8), Ordinal([16, 32, 64])],
    "act": Categorical(["relu", "gelu", "tanh"]),
    "drop": Categorical([0, 0.5]),
    "batch_size": Integer(8, 64),
    "seed": None,
}


def columns(*metas: Any, space: Any = None, **options: Any) -> Columns:
    """The columns of a first population."""
    known: dict[str, Any] = {"categories": None, "max_batch": None} | options
    return Columns(metas, space, **known)


def dtypes(found: Columns) -> dict[str, str]:
    """Each column's dtype by its name."""
    shapes = found.shapes()
    return {name: str(x.dtype) for name, x in zip(found.names, shapes, strict=True)}


def encoded(found: Columns, meta_params: Any) -> list[Any]:
    """The scalars of one member as Python's numbers."""
    return [scalar.item() for scalar in found.encode(meta_params, 0)]


# What a leaf is called, and its type.


def test_a_leaf_is_named_as_people_write_it() -> None:
    """Dots lead into dicts, brackets into lists and to keys that are not strings."""
    found = columns({"a": 0.1, "b": {"c": {3: 2}}, "d": [1.0, (2.0,)]})
    assert set(found.names) == {"a", "b.c[3]", "d[0]", "d[1][0]"}
    assert columns(0.1, 0.2).names == ("meta_params",)
    assert columns([0.1, 0.2]).names == ("meta_params[0]", "meta_params[1]")


def test_the_first_population_says_what_a_leaf_is() -> None:
    """One float among numbers makes floats; ints or bools must be those of all."""
    first = {"a": 1, "b": 1, "c": True}
    found = columns(first, first | {"a": 2.5})
    assert dtypes(found) == {"a": "float32", "b": "int32", "c": "bool"}
    assert [x.tolist() for x in found.stack([first])] == [[1.0], [1], [True]]


def test_the_space_says_what_a_leaf_is() -> None:
    """The first values do not matter; choices of numbers are numbers."""
    first = sample(SPACE, np.random.default_rng(0)) | {"rate": 1, "drop": 0}
    assert dtypes(columns(first, space=SPACE)) == {
        "rate": "float32",
        "optimizer.beta": "float32",
        "optimizer.nesterov": "bool",
        "layers[0]": "int32",
        "layers[1]": "int32",
        "act": "int32",
        "drop": "float32",
        "batch_size": "int32",
    }


def test_numbers_are_as_wide_as_those_of_jax() -> None:
    """If JAX computes with 64 bits, meta_params have 64 bits too."""
    config: Any = jax.config
    config.update("jax_enable_x64", True)
    try:
        found = columns({"a": 0.1, "b": 2**40})
    finally:
        config.update("jax_enable_x64", False)
    assert dtypes(found) == {"a": "float64", "b": "int64"}
    assert encoded(found, {"a": 0.1, "b": 2**40}) == [0.1, 2**40]


@given(st.integers(0, 2**32 - 1))
def test_what_a_space_draws_reaches_the_functions(seed: int) -> None:
    """The same tree, with numbers as near as float32 has them, and codes."""
    rng = np.random.default_rng(seed)
    first, other = sample(SPACE, rng), sample(SPACE, rng)
    found = columns(first, space=SPACE)
    seen = found.tree(found.encode(other, 1))
    code = ["relu", "gelu", "tanh"].index(other["act"])
    assert seen.pop("act") == code
    assert seen.pop("seed") is None
    wanted = {k: v for k, v in other.items() if k not in ("act", "seed")}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), seen, wanted)


# Categories.


def test_categories_are_codes() -> None:
    """The code is the position among the values, for lax.switch; kinds may be mixed."""
    space = {"act": Categorical(["relu", "gelu"]), "depth": Ordinal([1, "deep"])}
    first = {"act": "gelu", "depth": 1}
    found = columns(first, space=space)
    assert dtypes(found) == {"act": "int32", "depth": "int32"}
    assert encoded(found, {"act": "gelu", "depth": "deep"}) == [1, 1]
    assert encoded(found, {"act": "relu", "depth": 1}) == [0, 0]


def test_categories_tell_apart_what_the_codec_does() -> None:
    """1, 1.0 and True are different values, however Python compares them."""
    values = [True, 1, 1.0, None, "1", (1,)]
    found = columns({"a": 1}, categories={"a": values})
    assert [encoded(found, {"a": v}) for v in values] == [[i] for i in range(6)]
    assert encoded(found, {"a": np.float64(1.0)}) == [2]
    with pytest.raises(ValueError, match=r"a of worker 0 must be .* got False"):
        found.encode({"a": False}, 0)


def test_given_categories_win_over_the_space() -> None:
    """Numbers become codes if `categories` lists them."""
    space = {"net": {"width": Ordinal([16, 32])}}
    given = {"net.width": [32, 16]}
    found = columns({"net": {"width": 16}}, space=space, categories=given)
    assert encoded(found, {"net": {"width": 16}}) == [1]


@pytest.mark.parametrize("named", [True, False])
def test_a_category_may_be_a_tree(named: bool) -> None:
    """The values of a choice may be anything, lists included."""
    values = [[64], [64, 64]]
    space = None if named else {"layers": Categorical(values), "a": 1.0}
    categories = {"layers": values} if named else None
    first: Any = {"layers": [64], "a": 1.0}
    found = columns(first, space=space, categories=categories)
    assert set(found.names) == {"layers", "a"}
    assert found.tree(found.encode(first | {"layers": [64, 64]}, 0))["layers"] == 1


def test_a_string_needs_its_values() -> None:
    """The error says how to give them, also where the space has a constant."""
    for space in (None, {"net": {"act": "relu"}, "rate": Uniform(0, 1)}):
        with pytest.raises(ValueError, match=r"categories=\{'net.act': \[...\]\}"):
            columns({"net": {"act": "relu"}, "rate": 0.1}, space=space)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"categories": {"akt": ["relu"]}}, r"of \['act'\], got \['akt'\]"),
        ({"categories": {"act": []}}, r"list of different values, got \[\]"),
        ({"categories": {"act": "relu"}}, "list of different values, got 'relu'"),
        ({"categories": {"act": ["relu", "relu"]}}, "list of different values"),
        ({"categories": {"act": ["gelu"]}}, "act of worker 0 must be one of"),
        ({"categories": {"act": ["relu"]}, "max_batch": {"b": 3}}, r"got \['b'\]"),
        ({"categories": {"act": ["relu"]}, "max_batch": 3}, r"got \['batch_size'\]"),
    ],
)
def test_what_is_said_of_leaves_must_be_true(option: Any, error: str) -> None:
    """Unknown names, and lists that are not lists, are refused."""
    with pytest.raises(ValueError, match=error):
        columns({"act": "relu"}, **option)


# Batch sizes.


def test_a_batch_size_needs_its_maximum() -> None:
    """Otherwise it would change the shape of batches; the error says what to do."""
    with pytest.raises(ValueError, match=r"net.batch_size .* max_batch=.* mask"):
        columns({"net": {"batch_size": 32}})
    with pytest.raises(ValueError, match="an int from 1 on, got 64"):
        columns({"batch_size": 32}, max_batch=64.5)
    with pytest.raises(ValueError, match="an int from 1 on, got 0"):
        columns({"batch_size": 32}, max_batch={"batch_size": 0})
    assert columns({"batch_size": 32}, max_batch=np.int64(64)).names == ("batch_size",)


@pytest.mark.parametrize(
    ("space", "max_batch"),
    [
        ({"batch_size": Integer(1, 64)}, None),
        ({"batch_size": Ordinal([16, 64, 32])}, None),
        ({"batch_size": Uniform(1, 64.5)}, None),
        ({"batch_size": 64, "rate": Uniform(0, 1)}, None),
        ({"batch_size": Integer(1, 999)}, 64),
        (None, 64),
        (None, {"batch_size": 64}),
    ],
)
def test_a_batch_size_goes_up_to_its_maximum(space: Any, max_batch: Any) -> None:
    """It is an int from 1 to what the space or `max_batch` says."""
    first = {"batch_size": 64, "rate": 0.1}
    found = columns(first, space=space, max_batch=max_batch)
    assert dtypes(found)["batch_size"] == "int32"
    assert 1 in encoded(found, first | {"batch_size": 1})
    for wrong in (0, 65, 2.5, True, math.nan):
        with pytest.raises(ValueError, match=r"batch_size of worker 3 .* to 64"):
            found.encode(first | {"batch_size": wrong}, 3)


def test_another_name_can_be_a_batch_size() -> None:
    """`max_batch` by name makes any leaf one."""
    found = columns({"size": 8.0}, max_batch={"size": 16})
    assert dtypes(found) == {"size": "int32"}
    with pytest.raises(ValueError, match=r"size of worker 0 .* from 1 to 16"):
        found.encode({"size": 17}, 0)


def test_the_mask_says_which_examples_count() -> None:
    """The first examples count, as many as a traced batch size says."""
    found = jax.jit(lambda n: mask(n, 4))(jnp.int32(3))
    assert found.tolist() == [True, True, True, False]
    assert found.dtype == jnp.bool_
    assert mask(4, 4).all()


# Which values fit, and which do not.


@pytest.mark.parametrize(
    ("first", "value", "seen"),
    [
        (0.1, 2, 2.0),
        (0.1, 10**30, 1e30),
        (0.1, np.float64(0.5), 0.5),
        (0.1, np.int64(3), 3.0),
        (0.1, jnp.float32(0.5), 0.5),
        (0.1, math.inf, math.inf),
        (1, 3.0, 3),
        (1, np.int64(3), 3),
        (1, np.float32(3), 3),
        (1, -(2**31), -(2**31)),
        (True, np.bool_(False), False),
    ],
)
def test_what_is_exact_fits(first: Any, value: Any, seen: Any) -> None:
    """NumPy's and JAX's scalars, ints as floats, whole floats as ints."""
    found = columns({"a": first})
    (scalar,) = found.encode({"a": value}, 0)
    assert scalar == np.asarray(seen, scalar.dtype)
    assert scalar.dtype == found.shapes()[0].dtype


def test_nan_is_a_float() -> None:
    """A mutator may return it, and the program computes with it."""
    assert np.isnan(columns({"a": 0.1}).encode({"a": math.nan}, 0)[0])


@pytest.mark.parametrize(
    ("first", "value"),
    [
        (0.1, True),
        (0.1, "0.1"),
        (0.1, None),
        (0.1, [0.1]),
        (0.1, 1e39),
        (0.1, 10**400),
        (0.1, np.ones(1)),
        (1, 1.5),
        (1, True),
        (1, 2**31),
        (1, math.nan),
        (1, math.inf),
        (True, 1),
        (True, np.float32(1)),
        (True, object()),
    ],
)
def test_what_does_not_fit_is_refused(first: Any, value: Any) -> None:
    """The error names the leaf and the worker, and says what is needed."""
    found = columns({"net": {"a": first}})
    with pytest.raises(ValueError, match=r"net\.a of worker 7 must be .*, got "):
        found.encode({"net": {"a": value}}, 7)
    with pytest.raises(ValueError, match=r"net\.a of worker 1 must be "):
        found.stack([{"net": {"a": first}}, {"net": {"a": value}}])


def test_a_first_population_must_be_of_one_kind() -> None:
    """The member that differs is named; a float is not valid in an int's domain."""
    with pytest.raises(ValueError, match=r"a of worker 2 must be .* got False"):
        columns({"a": 1}, {"a": 0.5}, {"a": False})
    with pytest.raises(ValueError, match=r"a of worker 1 .*got None.*None too"):
        columns({"a": 1}, {"a": None})
    with pytest.raises(ValueError, match="a of worker 1 must be a whole number"):
        columns({"a": 1}, {"a": 1.5}, space={"a": Integer(0, 3)})


def test_none_for_all_is_no_column() -> None:
    """It stays None, and any other value is refused."""
    found = columns({"a": 0.1, "b": None}, {"a": 0.2, "b": None})
    assert found.names == ("a",)
    assert found.tree([1.0]) == {"a": 1.0, "b": None}
    with pytest.raises(ValueError, match=r"worker 1 .* b is not None"):
        found.encode({"a": 0.1, "b": 0.1}, 1)
    with pytest.raises(ValueError, match=r"worker 1 .* b is not None"):
        columns({"a": 0.1, "b": None}, {"a": 0.2, "b": 1})


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"a": 0.1, "net": {"b": [1, 2]}}, "net.c is missing"),
        ({"a": 0.1, "net": {"b": [1, 2], "c": 1}, "d": 2}, "d is additional"),
        ({"a": 0.1, "net": {"b": [1], "c": 1}}, r"net.b\[1\] is missing"),
        ({"a": 0.1, "net": {"b": (1, 2), "c": 1}}, "net.b is not a list"),
        ({"a": 0.1, "net": 3}, "net is not a dict"),
        ([0.1], "the whole is not a dict"),
        ({"b": 0.1, "net": {"b": [1, 2], "c": 1}}, "a is missing, b is additional"),
    ],
)
def test_all_members_have_one_structure(other: Any, error: str) -> None:
    """The message names the missing or additional key, and the worker."""
    first = {"a": 0.1, "net": {"b": [1, 2], "c": 1}}
    with pytest.raises(ValueError, match=f"meta_params of worker 4 .*{error}"):
        columns(first).encode(other, 4)
    with pytest.raises(ValueError, match=f"meta_params of worker 1 .*{error}"):
        columns(first, other)


def test_the_order_of_keys_does_not_matter() -> None:
    """Two dicts with equal entries are the same meta_params."""
    found = columns({"a": 1, "b": 0.5})
    assert found.encode({"b": 0.25, "a": 2}, 0) == found.encode({"a": 2, "b": 0.25}, 0)


# The functions that the engine calls.


def test_functions_see_traced_scalars_in_the_tree() -> None:
    """One program for all values: a second one does not trace it again."""
    found = columns({"a": 0.1, "b": (1, [True])})
    traces = []

    @jax.jit
    def program(scalars: Any) -> Any:
        meta_params = found.tree(scalars)
        traces.append(meta_params)
        return meta_params["a"] * meta_params["b"][0]

    assert program(found.encode({"a": 0.5, "b": (2, [True])}, 0)) == 1.0
    assert program(found.encode({"a": 2, "b": (3, [False])}, 0)) == 6.0
    assert len(traces) == 1
    assert type(traces[0]["b"]) is tuple
    assert type(traces[0]["b"][1]) is list


def test_members_are_stacked_in_order() -> None:
    """Each column is `[N]`, of the dtype of the shapes and of the empty columns."""
    metas = [{"a": 0.5 * w, "b": w} for w in range(3)]
    found = columns(*metas)
    a, b = found.stack(metas)
    assert (a.tolist(), b.tolist()) == ([0.0, 0.5, 1.0], [0, 1, 2])
    assert [x.dtype for x in (a, b)] == [x.dtype for x in found.shapes()]
    blank = [(x.shape, x.dtype) for x in found.blank(4)]
    assert blank == [((4,), a.dtype), ((4,), b.dtype)]


def test_each_column_can_be_made_concrete() -> None:
    """Each alone, then all together, with the numbers of worker 0."""
    found = columns({"a": 1, "b": 2}, {"a": 3, "b": 4})
    ways = [(fix((8, 9)), name) for fix, name in found.concrete()]
    assert ways == [((1, 9), "a"), ((8, 2), "b"), ((1, 2), "a or b")]
