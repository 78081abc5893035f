"""The params stores: what comes back, what is refused, and kills in mid-save."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, struct
from flax.training import train_state

from population import ParamsError, PopulationController
from population.mutators import FixedSchedule
from population.params import FileParams, MemoryParams


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Any:
    """Each store in turn."""
    return MemoryParams() if request.param == "memory" else FileParams(tmp_path)


def assert_alike(found: Any, expected: Any) -> None:
    """Equal structure, kinds of leaves, dtypes, weak types, devices and numbers."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, expected)]
    assert structures[0] == structures[1]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        if isinstance(other, jax.Array):
            assert isinstance(one, jax.Array)
            assert jax.typeof(one) == jax.typeof(other)  # With the weak type.
            if jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
        else:
            assert type(one) is type(other)
        if isinstance(other, (np.ndarray, np.generic)):
            assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


class Pair(NamedTuple):
    """A node that is no plain container."""

    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    """A dataclass that JAX knows."""

    weights: Any
    name: str = dataclasses.field(metadata={"static": True}, default="static")


static: Any = functools.partial(struct.field, pytree_node=False)


@struct.dataclass
class OfFlax:
    """A dataclass of Flax."""

    weights: Any
    count: int = static(default=3)


class Model(linen.Module):
    """A layer with a norm and statistics."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the prediction."""
        x = linen.BatchNorm(use_running_average=False)(x)
        output: jax.Array = linen.Dense(2, param_dtype=jnp.bfloat16)(x)
        return output


def filled(fill: float, shape: Any = (), dtype: Any = jnp.float32) -> jax.Array:
    """An array that is not weakly typed."""
    return jnp.full(shape, fill, dtype)


def weights(fill: float) -> dict[str, Any]:
    """Some arrays."""
    return {"w": filled(fill, (3, 2)), "b": filled(fill, 2, jnp.bfloat16)}


MODEL = Model()
INJECTED = optax.inject_hyperparams(optax.adamw)(learning_rate=0.1)


def linen_state(fill: float) -> Any:
    """Flax's training state, with an optimiser whose numbers can be put."""
    variables = MODEL.init(jax.random.key(0), jnp.ones((4, 3)))
    create: Any = train_state.TrainState.create
    state = create(
        apply_fn=Model.apply,
        params=variables["params"],
        tx=INJECTED,
    )
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, fill), state.params)
    return {"state": state.replace(params=params), "stats": variables["batch_stats"]}


def optax_states(fill: float) -> Any:
    """Optimisers of several shapes."""
    tree = weights(fill)
    parts = optax.multi_transform(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1, momentum=0.9)}, {"w": "a", "b": "b"}
    )
    steps: Any = optax.MultiSteps(optax.lion(0.1), 2)
    masked = optax.masked(optax.adam(1.0), {"w": True, "b": False})
    chain = optax.chain(optax.clip(1.0), optax.ema(0.9), masked)
    return [parts.init(tree), steps.init(tree), chain.init(tree)]


def nnx_state(fill: float) -> Any:
    """The state of an nnx module, split from its definition; with its own keys."""

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layer = nnx.Linear(3, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    _, state = nnx.split(Net(nnx.Rngs(0)))

    def changed(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jnp.full_like(leaf, fill)

    return jax.tree.map(changed, state)


TREES: dict[str, Callable[[float], Any]] = {
    "linen": linen_state,
    "optax": optax_states,
    "nnx": nnx_state,
    "named tuple": lambda fill: Pair(weights(fill), Pair(None, filled(fill))),
    "registered dataclass": lambda fill: Registered(weights(fill)),
    "flax dataclass": lambda fill: OfFlax(weights(fill)),
    "ordered dict": lambda fill: collections.OrderedDict(z=filled(fill), a=weights(1)),
    "one array": lambda fill: filled(fill, 3),
    "one scalar": lambda fill: filled(fill),
    "nothing": lambda fill: {},
    "weak scalar": lambda fill: {"weak": jnp.asarray(fill), "strong": filled(fill)},
    "weak array": lambda fill: {"weak": jnp.full((3, 2), fill), "other": filled(fill)},
    "python": lambda fill: {"step": int(fill), "rate": fill, "on": fill > 1, "s": "x"},
    "key": lambda fill: {"key": jax.random.key(int(fill))},
    "keys": lambda fill: jax.random.split(jax.random.key(int(fill)), 3),
    "rbg key": lambda fill: jax.random.key(int(fill), impl="rbg"),
    "old key": lambda fill: jax.random.PRNGKey(int(fill)),
    "numpy": lambda fill: {"a": np.full(3, fill), "b": np.array(fill, np.float16)},
    "numpy scalars": lambda fill: {"a": np.float32(fill), "b": np.int8(fill)},
}


@pytest.mark.parametrize("name", TREES)
def test_any_tree_comes_back_into_one_of_its_structure(store: Any, name: str) -> None:
    """With `like=`, what was saved comes back in its kinds, dtypes and weak types."""
    tree = TREES[name](2.0)
    assert_alike(store.load(store.save("a", tree), TREES[name](1.0)), tree)


PLAIN: dict[str, Any] = {
    "dict": {"w": np.arange(6.0).reshape(2, 3)},
    "jax": {"w": jnp.arange(6.0).reshape(2, 3), "n": np.arange(3)},
    "nested": [({"a": (np.ones(1),)}, [np.zeros(2)]), ()],
    "int keys": {1: np.ones(1), 2: {10: np.zeros(1)}},
    "tuple keys": {(0, 1): np.ones(1), (1, 0): np.zeros(1)},
    "odd keys": {"!tuple": np.ones(1), "a/b": np.zeros(1), "": np.ones(2)},
    "none": {"a": None, "b": (None, np.ones(1))},
    "python": {
        "a": 1,
        "b": 2.5,
        "c": True,
        "d": "text",
        "e": b"bytes",
        "w": np.ones(1),
    },
    "extreme python": [2**63 - 1, -(2**63), 1e-300, float("inf"), np.ones(1)],
    "numpy scalars": (np.float32(1.5), np.int16(3), np.bool_(True), np.float64(2)),
    "bfloat16": {"a": jnp.ones(3, jnp.bfloat16), "b": np.ones(2, jnp.bfloat16)},
    "float8": {"a": jnp.ones(3, jnp.float8_e4m3fn)},
    "int4": {"a": jnp.ones(3, jnp.int4)},
    "complex": {"a": jnp.ones(3, jnp.complex64), "b": np.ones(2, np.complex128)},
    "bool": {"a": np.array([True, False])},
    "0-d": {"a": np.array(1.5), "b": jnp.float32(2.5), "c": np.array(3, np.int8)},
    "empty": {"a": np.zeros((0, 3), np.float32), "b": jnp.zeros((2, 0))},
    "key": {"key": jax.random.key(1), "keys": jax.random.split(jax.random.key(2), 3)},
    "rbg key": [jax.random.key(1, impl="rbg")],
    "old key": [jax.random.PRNGKey(1)],
    "not contiguous": {"a": np.arange(12).reshape(3, 4).T[::2]},
    "big endian": {"a": np.arange(3, dtype=">f8").astype(">f8")},
    "nan": {"a": np.array([np.nan, np.inf, -np.inf])},
    "one array": np.arange(3),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_containers_come_back_by_themselves(store: Any, name: str) -> None:
    """Dicts, lists and tuples of arrays need no `like=`; JAX arrays stay JAX arrays."""
    tree = PLAIN[name]
    found = store.load(store.save("a", tree))
    strip = {"big endian"}
    if name in strip:  # The byte order is the machine's business, the numbers are not.
        np.testing.assert_array_equal(found["a"], tree["a"])
    else:
        assert_alike(found, tree)


def test_weak_types_do_not_survive_without_a_model(store: Any) -> None:
    """Without `like=` an array comes back with its dtype; nothing says it was weak."""
    found = store.load(store.save("a", {"a": jnp.asarray(1.0)}))
    assert found["a"].dtype == jnp.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pair(np.ones(1), 2),
        lambda: [Registered(np.ones(1))],
        lambda: collections.OrderedDict(a=np.ones(1)),
    ],
)
def test_other_containers_ask_for_a_model(
    make: Callable[[], Any], tmp_path: pathlib.Path
) -> None:
    """A type is never read from a file; the message says what to pass."""
    store = FileParams(tmp_path)
    saved = store.save("a", make())
    with pytest.raises(ParamsError, match=r"like|restore\(init\)"):
        store.load(saved)
    assert_alike(store.load(saved, make()), make())


def test_a_donated_buffer_is_saved_before_it_goes(store: Any) -> None:
    """Loops donate their buffers; the copy was made at the save."""
    tree = {"w": jnp.arange(4.0)}
    saved = store.save("a", tree)
    jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(tree)
    assert tree["w"].is_deleted()
    np.testing.assert_array_equal(store.load(saved)["w"], np.arange(4.0))


def test_the_caller_may_change_the_original(store: Any) -> None:
    """What was saved is a copy, of the arrays and of the containers."""
    tree: dict[str, Any] = {"w": np.arange(4.0), "list": [np.ones(1)]}
    saved = store.save("a", tree)
    tree["w"][:] = -1
    tree["list"].append(1)
    tree["new"] = 1
    found = store.load(saved)
    assert found.keys() == {"w", "list"}
    assert len(found["list"]) == 1
    np.testing.assert_array_equal(found["w"], np.arange(4.0))


@pytest.mark.parametrize("with_model", [True, False])
def test_two_loads_are_independent(store: Any, with_model: bool) -> None:
    """Changing, or donating, one loaded tree changes neither the other nor the save."""
    tree = {"n": np.arange(4.0), "j": jnp.arange(4.0), "list": [np.ones(1)]}
    saved = store.save("a", tree)
    like = tree if with_model else None
    first, second = store.load(saved, like), store.load(saved, like)
    first["n"][:] = -1
    first["list"][0][:] = -1
    jax.jit(lambda x: x + 1, donate_argnums=0)(first["j"])
    assert_alike(second, tree)
    assert_alike(store.load(saved, like), tree)


def test_the_model_itself_is_not_handed_out(store: Any) -> None:
    """The loaded tree may be donated while the model is still in use."""
    like = {"w": jnp.arange(4.0)}
    found = store.load(store.save("a", like), like)
    jax.jit(lambda x: x + 1, donate_argnums=0)(found["w"])
    np.testing.assert_array_equal(like["w"], np.arange(4.0))


def test_a_restored_tree_stands_on_the_device_of_its_model(store: Any) -> None:
    """If `init` pins its state to a device, a restored one is pinned there too."""
    device = jax.devices()[-1]
    like = jax.device_put(weights(1.0), device)
    found = store.load(store.save("a", weights(2.0)), like)
    assert [x.sharding for x in jax.tree.leaves(found)] == [
        x.sharding for x in jax.tree.leaves(like)
    ]
    assert all(leaf.committed for leaf in jax.tree.leaves(found))


def test_no_two_saves_share_a_path(store: Any) -> None:
    """The same name twice is two saves, each with what it was given."""
    first, second = store.save("g/1", {"a": 1}), store.save("g/1", {"a": 2})
    assert first != second
    assert (store.load(first)["a"], store.load(second)["a"]) == (1, 2)


def test_a_removed_tree_is_missing(store: Any) -> None:
    """Removing it a second time is no error; the others stay."""
    first, second = store.save("a", {"a": 1}), store.save("a", {"a": 2})
    store.remove(first)
    store.remove(first)
    with pytest.raises(ParamsError):
        store.load(first)
    assert store.load(second) == {"a": 2}


def test_missing_params_are_named(tmp_path: pathlib.Path) -> None:
    """The message says which file is missing."""
    with pytest.raises(ParamsError, match=r"gone-1\.msgpack are missing"):
        FileParams(tmp_path).load("gone-1.msgpack")


def test_another_process_finds_the_save(tmp_path: pathlib.Path) -> None:
    """The path is relative to the folder; a store opened later reads it."""
    saved = FileParams(tmp_path).save("g/1", {"a": np.ones(2)})
    assert not os.path.isabs(saved)
    assert (tmp_path / saved).is_file()
    np.testing.assert_array_equal(FileParams(tmp_path).load(saved)["a"], np.ones(2))


def test_a_folder_may_be_moved(tmp_path: pathlib.Path) -> None:
    """Paths in a journal do not break when the run folder is renamed."""
    saved = FileParams(tmp_path / "before").save("g/1", {"a": np.ones(2)})
    (tmp_path / "before").rename(tmp_path / "after")
    FileParams(tmp_path / "after").load(saved)


def test_one_save_is_one_file(tmp_path: pathlib.Path) -> None:
    """Whatever the tree, there is one file and nothing beside it."""
    FileParams(tmp_path).save("g/1", linen_state(1.0))
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


@pytest.mark.parametrize("cut", [0, 1, 10, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_is_damaged(tmp_path: pathlib.Path, cut: float) -> None:
    """A short file is never a short tree."""
    store = FileParams(tmp_path)
    saved = store.save("a", {"w": np.arange(100.0), "b": np.ones(3)})
    file = tmp_path / saved
    content = file.read_bytes()
    end = int(cut * len(content)) if isinstance(cut, float) else cut
    file.write_bytes(content[:end])
    for like in (None, {"w": np.arange(100.0), "b": np.ones(3)}):
        with pytest.raises(ParamsError, match="are damaged"):
            store.load(saved, like)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1000,
        b"not msgpack at all",
        b"\xc1" * 10,
        b"\x80",
        b"\x93\x01\x02\x03",
        b"\xc0",
        b"\x01",
        b"\x82\xa6layout\xc0\xa6leaves\xc0",
        b"\x82\xa6layout\x01\xa6leaves\x80",
        b"\x82\xa6layout\xa4oops\xa6leaves\x80",
        b'\x82\xa6layout\xa6"jax""\xa6leaves\x80',
        b'\x82\xa6layout\xa5"jax"\xa6leaves\x80',
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_a_file_of_something_else_is_damaged(
    tmp_path: pathlib.Path, garbage: bytes
) -> None:
    """Whatever lies in the file, the error is the library's and names the file."""
    store = FileParams(tmp_path)
    saved = store.save("a", {"w": np.ones(3)})
    (tmp_path / saved).write_bytes(garbage)
    for like in (None, {"w": np.ones(3)}):
        with pytest.raises(ParamsError, match="msgpack"):
            store.load(saved, like)


def test_a_flipped_bit_is_never_another_exception(tmp_path: pathlib.Path) -> None:
    """Each byte of a file changed in turn: it loads, or it is a ParamsError."""
    store = FileParams(tmp_path)
    tree = {"w": jnp.arange(2.0), "k": (jax.random.key(1), np.float32(1)), "s": "x"}
    saved = store.save("a", tree)
    file = tmp_path / saved
    content = file.read_bytes()
    choose, others = random.Random(0), []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << choose.randrange(8)
        file.write_bytes(damaged)
        for like in (None, tree):
            try:
                store.load(saved, like)
            except ParamsError:
                pass
            except Exception as error:
                others.append((position, like is None, repr(error)))
    assert others == []


def test_changed_numbers_are_noticed(tmp_path: pathlib.Path) -> None:
    """A file whose arrays were damaged is no checkpoint to go on from."""
    store = FileParams(tmp_path)
    saved = store.save("a", {"w": np.zeros(1000)})
    file = tmp_path / saved
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(ParamsError, match="are damaged"):
        store.load(saved)


MISFITS: list[Any] = [
    pytest.param({"w": np.ones(2)}, {"w": np.ones(3)}, r"\['w'\].*\(2,\).*\(3,\)"),
    pytest.param({"w": np.ones(2)}, {"v": np.ones(2)}, r"\['v'\], \['w'\]"),
    pytest.param({"w": np.ones(2)}, {}, r"\['w'\]"),
    pytest.param({}, {"w": np.ones(2)}, r"\['w'\]"),
    pytest.param({"a": {"w": np.ones(2)}}, {"a": [np.ones(2)]}, r"\['a'\]\[0\]"),
    pytest.param({"w": None}, {"w": np.ones(2)}, r"\['w'\]"),
    pytest.param({"w": np.ones(2)}, {"w": 1.0}, r"\['w'\]"),
    pytest.param({"w": 1.0}, {"w": np.ones(2)}, r"\['w'\]"),
    pytest.param({"w": "text"}, {"w": jnp.ones(())}, r"\['w'\]"),
    pytest.param({"w": "text"}, {"w": 1.0}, r"\['w'\]"),
    pytest.param({"w": np.ones(2)}, {"w": jax.random.key(0)}, r"\['w'\]"),
    pytest.param(
        {"w": jax.random.key(0)}, {"w": jax.random.key(0, impl="rbg")}, r"\['w'\]"
    ),
    pytest.param({"w": np.ones(2, np.complex64)}, {"w": jnp.ones(2)}, r"\['w'\]"),
    pytest.param({"w": np.full(2, 0.5)}, {"w": jnp.ones(2, int)}, r"\['w'\]"),
]


@pytest.mark.parametrize(("tree", "like", "place"), MISFITS)
def test_what_does_not_fit_is_named_by_its_place(
    store: Any, tree: Any, like: Any, place: str
) -> None:
    """The model was changed since the save: the message says where."""
    saved = store.save("a", tree)
    with pytest.raises(ParamsError, match=place):
        store.load(saved, like)


def test_a_change_of_precision_is_no_misfit(store: Any) -> None:
    """A state saved in one float dtype goes on in the model's."""
    saved = store.save("a", {"w": jnp.full(2, 0.5), "n": np.arange(2, dtype=np.int64)})
    like = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.ones(2, jnp.int32)}
    found = store.load(saved, like)
    assert_alike(found, {"w": jnp.full(2, 0.5, jnp.bfloat16), "n": jnp.arange(2)})


def test_the_model_may_be_shapes_alone(store: Any) -> None:
    """`jax.eval_shape(init)` says what is needed and costs no memory."""
    tree = weights(2.0)
    found = store.load(store.save("a", tree), jax.eval_shape(lambda: weights(1.0)))
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, tree)
    np.testing.assert_array_equal(np.asarray(found["w"]), np.asarray(tree["w"]))


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(np.array([object()]), id="objects"),
        pytest.param(np.array([{"a": 1}, None], dtype=object), id="dicts"),
        pytest.param(np.zeros(2, dtype=[("a", int)]), id="structured"),
        pytest.param(np.array(["a", "bc"]), id="texts"),
        pytest.param(np.array([b"a", b"bc"]), id="bytes"),
        pytest.param(np.str_("a"), id="np.str_"),
        pytest.param(object(), id="object"),
        pytest.param(len, id="function"),
        pytest.param(2**64, id="long int"),
        pytest.param(1j, id="complex"),
    ],
)
@pytest.mark.parametrize("with_model", [True, False])
def test_a_leaf_comes_back_or_is_refused_by_its_place(
    leaf: Any, with_model: bool, tmp_path: pathlib.Path
) -> None:
    """Nothing is reported that a restart cannot read; a refusal leaves no file."""
    tree = {"deep": (np.ones(1), leaf)}
    controller = PopulationController([0.1], FixedSchedule({0: 0.1}), tmp_path)
    generation_id = controller.workers[0].generation_id
    refused = ""
    try:
        controller.set_eval(0, generation_id, 1, tree, 1.0)
    except TypeError as error:
        refused = str(error)
    if refused:
        assert "params['deep'][1]" in refused
        assert not [p for p in (tmp_path / "params").rglob("*") if p.is_file()]
    else:
        like = tree if with_model else None
        assert_alike(controller.load(controller.newest(0), like), tree)
    controller.close()


def complete(folder: pathlib.Path) -> list[str]:
    """All that has the name of a save."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*.msgpack")
        if path.is_file()
    )


@pytest.mark.parametrize(
    ("function", "number"),
    [("fsync", 1), ("fsync", 2), ("replace", 1), ("open", 1)],
)
def test_a_failed_save_leaves_the_previous_params(
    function: str,
    number: int,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer that fails in the middle leaves no save and no temporary of its own."""
    store = FileParams(tmp_path)
    before = store.save("g/1", {"a": np.ones(2)})
    original, calls = getattr(os, function), []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return original(*arguments, **named)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(OSError, match="No space left"):
        store.save("g/1", {"a": np.zeros(2)})
    monkeypatch.undo()
    files = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert files == [before]
    np.testing.assert_array_equal(store.load(before)["a"], np.ones(2))


def test_a_stale_temporary_does_not_block(tmp_path: pathlib.Path) -> None:
    """What a killed writer left beside its place is nobody's save."""
    store = FileParams(tmp_path)
    before = store.save("g/1", {"a": 1})
    for stale in (f".{pathlib.Path(before).name}.0.tmp", ".1.msgpack.tmp", "1.tmp"):
        (tmp_path / "g" / stale).write_bytes(b"half")
    after = store.save("g/1", {"a": 2})
    assert (store.load(before), store.load(after)) == ({"a": 1}, {"a": 2})
    assert complete(tmp_path) == sorted([before, after])


def test_saves_are_synced_before_they_get_their_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the content, then the name, then the folder that holds the name."""
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def rename(*paths: Any) -> None:
        order.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    FileParams(tmp_path).save("a", {"a": np.ones(2)})
    assert order == ["file", "name", "folder"]


WRITER = """
import os, signal, sys
import numpy as np
from population.params import FileParams

folder, point = sys.argv[1:3]
store = FileParams(folder)


def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)


store.save("g/0", {"n": 0, "w": np.full(20_000, 0.0)})
if point == "before replace":
    os.replace = die
elif point == "before sync":
    os.fsync = die
elif point == "after replace":
    replace = os.replace
    os.replace = lambda *paths: (replace(*paths), die())
print("ready", flush=True)
n = 0
while True:
    n += 1
    store.save(f"g/{n}", {"n": n, "w": np.full(20_000, float(n))})
    print(n, flush=True)
"""


def start_writer(folder: pathlib.Path, point: str) -> subprocess.Popen[str]:
    """A process that saves until it dies."""
    root = str(pathlib.Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), point],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
    )


def assert_whole(folder: pathlib.Path) -> int:
    """All that has the name of a save can be loaded; say how many there are."""
    store = FileParams(folder)
    for path in complete(folder):
        tree = store.load(path)
        np.testing.assert_array_equal(tree["w"], np.full(20_000, float(tree["n"])))
    return len(complete(folder))


@pytest.mark.parametrize(
    ("point", "saves"),
    [("before sync", 1), ("before replace", 1), ("after replace", 2)],
)
def test_a_kill_in_the_middle_of_a_save_leaves_the_whole_or_nothing(
    point: str, saves: int, tmp_path: pathlib.Path
) -> None:
    """SIGKILL at a named point: what has the name of a save is one."""
    with start_writer(tmp_path, point) as writer:
        writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert assert_whole(tmp_path) == saves
    FileParams(tmp_path).save("g/1", {"n": 1, "w": np.full(20_000, 1.0)})
    assert assert_whole(tmp_path) == saves + 1


def test_random_kills_leave_only_whole_saves(tmp_path: pathlib.Path) -> None:
    """A process killed anywhere, again and again, leaves all that it had finished."""
    choose = random.Random(0)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        with start_writer(folder, "anywhere") as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            for _ in range(choose.randrange(1, 30)):
                writer.stdout.readline()
            writer.kill()
            rest = writer.stdout.read().split()
        finished = int(rest[-1]) if rest else 0
        assert assert_whole(folder) >= finished + 1
