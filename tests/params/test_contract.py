"""Promises of every params store: what is restored, what is refused, and the names."""

from __future__ import annotations

import collections
import functools
import pathlib
import pkgutil
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import ParamsError, PopulationController, params
from population.base import LostParamsError
from population.mutators import FixedSchedule
from tests.params.stores import STORES
from tests.params.trees import (
    PLAIN,
    TREES,
    Pair,
    Registered,
    assert_alike,
    filled,
    weights,
)


def test_every_store_is_tested() -> None:
    """No module of the package holds a store that the registry does not know."""
    helpers = {"checks", "checksums", "disk", "folder_store", "folders", "forms"}
    helpers |= {"kinds", "references", "reported", "tensor_file", "trees"}
    modules = {module.name for module in pkgutil.iter_modules(params.__path__)}
    assert modules - helpers == set(STORES)


@pytest.mark.parametrize("name", TREES)
def test_any_tree_comes_back_into_one_of_its_structure(store: Any, name: str) -> None:
    """With `like=` a tree has its kinds, dtypes and weak types again."""
    tree = TREES[name](2.0)
    assert_alike(store.load(store.save("a", tree), TREES[name](1.0)), tree)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_containers_come_back_by_themselves(store: Any, name: str) -> None:
    """Dicts, lists and tuples of arrays need no `like=`; JAX arrays stay JAX arrays."""
    tree = PLAIN[name]
    found = store.load(store.save("a", tree))
    strip = {"big endian"}
    if name in strip:  # The byte order may be the machine's; the numbers are equal.
        np.testing.assert_array_equal(found["a"], tree["a"])
    else:
        assert_alike(found, tree)


def test_weak_types_do_not_survive_without_a_model(store: Any) -> None:
    """Without `like=` an array has its dtype; nothing says that it was weak."""
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
    make: Callable[[], Any], on_disk: Any
) -> None:
    """No type is read from a file; the message says what to pass."""
    saved = on_disk.save("a", make())
    with pytest.raises(ParamsError, match=r"like|restore\(init\)"):
        on_disk.load(saved)
    assert_alike(on_disk.load(saved, make()), make())


def test_a_donated_buffer_is_saved_before_it_goes(store: Any) -> None:
    """Loops donate their buffers; the save makes the copy."""
    tree = {"w": jnp.arange(4.0)}
    saved = store.save("a", tree)
    jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(tree)
    assert tree["w"].is_deleted()
    np.testing.assert_array_equal(store.load(saved)["w"], np.arange(4.0))


def test_the_caller_may_change_the_original(store: Any) -> None:
    """The save is a copy of the arrays and of the containers."""
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
    """A change or donation of a loaded tree changes neither the other nor the save."""
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
    """If `init` puts its state on a device, a restored one is on that device too."""
    device = jax.devices()[-1]
    like = jax.device_put(weights(1.0), device)
    found = store.load(store.save("a", weights(2.0)), like)
    assert [x.sharding for x in jax.tree.leaves(found)] == [
        x.sharding for x in jax.tree.leaves(like)
    ]
    assert all(leaf.committed for leaf in jax.tree.leaves(found))


def test_no_two_saves_share_a_path(store: Any) -> None:
    """With the same name, two saves keep their own content."""
    first, second = store.save("g/1", {"a": 1}), store.save("g/1", {"a": 2})
    assert first != second
    assert (store.load(first)["a"], store.load(second)["a"]) == (1, 2)


def test_a_removed_tree_is_missing(store: Any) -> None:
    """To remove it a second time is not an error; the others stay."""
    first, second = store.save("a", {"a": 1}), store.save("a", {"a": 2})
    store.remove(first)
    store.remove(first)
    with pytest.raises(LostParamsError):
        store.load(first)
    assert store.load(second) == {"a": 2}


MISFITS: list[Any] = [
    pytest.param({"w": np.ones(2)}, {"w": np.ones(3)}, r"\['w'\].*\(2,\).*\(3,\)"),
    pytest.param({"w": np.ones(2)}, {"v": np.ones(2)}, r"\['v'\].*\['w'\]"),
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
    """The model has changed since the save: the message says where."""
    saved = store.save("a", tree)
    with pytest.raises(ParamsError, match=place):
        store.load(saved, like)


def test_a_change_of_precision_is_no_misfit(store: Any) -> None:
    """A state that was saved in one float dtype is restored in the model's."""
    saved = store.save("a", {"w": jnp.full(2, 0.5), "n": np.arange(2, dtype=np.int64)})
    like = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.ones(2, jnp.int32)}
    found = store.load(saved, like)
    assert_alike(found, {"w": jnp.full(2, 0.5, jnp.bfloat16), "n": jnp.arange(2)})


def test_the_model_may_be_shapes_alone(store: Any) -> None:
    """`jax.eval_shape(init)` is enough and uses no memory."""
    tree = weights(2.0)
    found = store.load(store.save("a", tree), jax.eval_shape(lambda: weights(1.0)))
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, tree)
    np.testing.assert_array_equal(np.asarray(found["w"]), np.asarray(tree["w"]))


WEIGHTS = np.ones(2)
REFUSED: list[Any] = [
    pytest.param(np.array([object()]), id="objects"),
    pytest.param(np.array([{"a": 1}, None], dtype=object), id="dicts"),
    pytest.param(np.zeros(2, dtype=[("a", int)]), id="structured"),
    pytest.param(np.array(["a", "bc"]), id="texts"),
    pytest.param(np.array([b"a", b"bc"]), id="bytes"),
    pytest.param(np.str_("a"), id="np.str_"),
    pytest.param(object(), id="object"),
    pytest.param(functools.partial(len, "ab"), id="partial"),
    pytest.param(np.ones(1).sum, id="method"),
    pytest.param((lambda w: lambda x: x @ w)(np.ones(2)), id="closure"),
    pytest.param(lambda x, w=WEIGHTS: x @ w, id="default"),
    pytest.param(2**64, id="long int"),
    pytest.param(1j, id="complex"),
]


@pytest.mark.parametrize("leaf", REFUSED)
def test_what_cannot_come_back_is_refused_by_its_place(store: Any, leaf: Any) -> None:
    """The message has the path in the tree; nothing of the save is left."""
    with pytest.raises(TypeError, match=r"params\['deep'\]\[1\] cannot be stored"):
        store.save("g/1", {"deep": (np.ones(1), leaf)})
    assert store.names("g") == []


FUNCTIONS = [len, jax.nn.relu, jax.jit(jnp.sin), jax.custom_jvp(abs), np.exp]
FUNCTIONS += [lambda x: x, jnp.exp, jax.nn.gelu, dict, np.float32, jnp.bfloat16]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_come_back_from_the_model(store: Any, function: Any) -> None:
    """A module's activation has no weights: it is not saved; the model supplies it."""
    saved = store.save("g/1", Pair({"w": np.ones(2)}, function))
    found = store.load(saved, Pair({"w": np.zeros(2)}, function))
    assert found.right is function
    np.testing.assert_array_equal(found.left["w"], np.ones(2))
    # So does what a store cannot save, and what was None when it was saved.
    saved = store.save("g/1", Pair({"w": np.ones(2)}, None))
    thing = functools.partial(len)
    assert store.load(saved, Pair({"w": np.zeros(2)}, thing)).right is thing


def test_without_a_model_a_tree_with_a_function_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    """The report refuses it, where the user can still change it, with its path."""
    controller = PopulationController([0.1], FixedSchedule({0: 0.1}), tmp_path)
    generation_id = controller.workers[0].generation_id
    tree = {"w": np.ones(1), "act": jax.nn.relu}
    with pytest.raises(TypeError, match=r"params\['act'\] .*restore\(init\)"):
        controller.set_eval(0, generation_id, 1, tree, 1.0)
    with controller.worker() as worker:
        worker.poll()
        worker.report(1.0, tree)
        point = controller.newest(0)
    with pytest.raises(ParamsError, match="Pass a tree of their structure"):
        controller.load(point)
    found = controller.load(point, {"w": np.zeros(1), "act": jax.nn.relu})
    assert found["act"] is jax.nn.relu
    controller.close()


@pytest.mark.parametrize("leaf", REFUSED)
@pytest.mark.parametrize("with_model", [True, False])
def test_a_leaf_comes_back_or_is_refused_by_its_place(
    leaf: Any, with_model: bool, tmp_path: pathlib.Path
) -> None:
    """Every recorded leaf can be read after a restart; a refusal leaves no file."""
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


def test_names_are_the_paths_right_under_a_folder(store: Any) -> None:
    """Saves under `folder/...` are listed, not those of folders beside or below it."""
    tree = {"a": jnp.ones(2)}
    first, second = store.save("g/1", tree), store.save("g/20", tree)
    other, above = store.save("h/1", tree), store.save("g", tree)
    deep = store.save("g/deep/1", tree)
    assert store.names("g") == sorted([first, second])
    assert store.names("h") == [other]
    assert store.names("") == [above]
    assert store.names("g/deep") == [deep]
    store.remove(first)
    assert store.names("g") == [second]


@pytest.mark.parametrize("folder", ["gone", "gone/deep", "..", "../x", "/"])
def test_a_folder_that_is_not_there_has_no_names(store: Any, folder: str) -> None:
    """A generation that never saved has none; there are none outside of the store."""
    store.save("g/1", {"a": jnp.ones(2)})
    assert store.names(folder) == []


def test_a_state_that_is_pinned_nowhere_stays_so(store: Any) -> None:
    """Otherwise the first step after a restore would be compiled again."""
    like = weights(1.0)
    found = store.load(store.save("a", weights(2.0)), like)
    assert not any(leaf.committed for leaf in jax.tree.leaves(found))


def test_a_pinned_tree_may_be_donated(store: Any) -> None:
    """It shares no memory with what the store keeps."""
    like = jax.device_put({"w": jnp.zeros(1024)}, jax.devices()[-1])
    tree = {"w": np.arange(1024, dtype=np.float32)}
    saved = store.save("a", tree)
    for _ in range(2):
        found = store.load(saved, like)
        np.testing.assert_array_equal(found["w"], tree["w"])
        jax.jit(lambda x: x + 1, donate_argnums=0)(found["w"])


def test_a_pinned_key_is_pinned_again(store: Any) -> None:
    """Keys are placed where the model has them, like all arrays."""
    device = jax.devices()[-1]
    like = jax.device_put(jax.random.split(jax.random.key(1), 3), device)
    tree = jax.random.split(jax.random.key(2), 3)
    found = store.load(store.save("a", tree), like)
    assert found.committed
    assert_alike(found, tree)


def test_other_keys_than_the_models_do_not_fit(store: Any) -> None:
    """Three keys are not four, although each of them would fit."""
    saved = store.save("a", {"k": jax.random.split(jax.random.key(2), 3)})
    with pytest.raises(ParamsError, match=r"\['k'\].*\(3,\).*\(4,\)"):
        store.load(saved, {"k": jax.random.split(jax.random.key(2), 4)})


def test_shapes_with_a_sharding_come_back_on_their_devices(store: Any) -> None:
    """A large model can be restored without a second copy of itself."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    shape_of: Any = jax.ShapeDtypeStruct
    like = {"w": shape_of((3, 2), jnp.bfloat16, sharding=sharding)}
    found = store.load(store.save("a", {"w": weights(2.0)["w"]}), like)
    assert isinstance(found["w"], jax.Array)
    assert found["w"].sharding == sharding
    assert_alike(found, {"w": jnp.full((3, 2), 2.0, jnp.bfloat16)})


@pytest.mark.parametrize("number", ["uint4", "float8_e5m2"])
def test_small_numbers_come_back_whoever_writes_them(store: Any, number: str) -> None:
    """What TensorStore cannot write is kept beside it."""
    tree = {"a": jnp.ones(3, getattr(jnp, number)), "b": jnp.ones(2)}
    saved = store.save("a", tree)
    assert_alike(store.load(saved), tree)
    assert_alike(store.load(saved, jax.tree.map(jnp.zeros_like, tree)), tree)


def test_threads_may_save_and_load_at_once(store: Any) -> None:
    """The workers of a process save at the same time; none gets another's save."""

    def work(number: int) -> list[float]:
        paths = [
            store.save(f"g{number}/{i}", {"w": filled(number * 10 + i, 50)})
            for i in range(3)
        ]
        return [float(store.load(path)["w"][-1]) for path in paths]

    with futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert found == [[n * 10.0 + i for i in range(3)] for n in range(4)]
