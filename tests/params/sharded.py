"""Checks with eight devices: `python -m tests.params.sharded FOLDER` in a process.

Its environment forces the number of devices. It prints the error of each check as JSON.
"""

from __future__ import annotations

import json
import pathlib
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from population import ParamsError
from population.base.errors import MisfitError
from population.params import FileParams, OrbaxParams
from population.params.reported import ReportedState
from tests.params.trees import Pair, assert_alike

TREE = {"w": np.arange(64.0).reshape(8, 8), "n": np.arange(8)}


# JAX has no annotations for these two.
spec: Any = PartitionSpec
shape_of: Any = jax.ShapeDtypeStruct


def placed(*axes: str | None, shape: tuple[int, int] = (4, 2)) -> NamedSharding:
    """A sharding over a mesh of this shape."""
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("x", "y"))
    return NamedSharding(mesh, spec(*axes))


def sharded(fill: float, sharding: NamedSharding) -> dict[str, Any]:
    """A state with sharded weights and keys, and with other leaves too."""
    weights = jnp.arange(64.0).reshape(8, 8) + fill
    rows = NamedSharding(sharding.mesh, spec("x"))
    keys = jax.random.split(jax.random.key(int(fill)), 8)
    return {
        "w": jax.device_put(weights, sharding),
        "half": jax.device_put(weights.astype(jnp.bfloat16), sharding),
        "keys": jax.device_put(keys, rows),
        "pair": Pair(jnp.float32(fill), int(fill)),
    }


def assert_placed(found: Any, like: Any) -> None:
    """Every array is on the devices of its model, shard by shard."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True):
        if isinstance(other, jax.Array):
            assert one.committed == other.committed
            assert one.sharding.is_equivalent_to(other.sharding, one.ndim)


def check_a_sharding_comes_back(folder: pathlib.Path) -> None:
    """Each shard goes from its device to the disk and back to that device."""
    tree = sharded(2.0, placed("x", "y"))
    like = sharded(1.0, placed("x", "y"))
    for store in (OrbaxParams(folder), FileParams(folder)):
        found = store.load(store.save("g/1", tree), like)
        assert_alike(found, tree)
        assert_placed(found, like)
        part = found["w"].addressable_shards[-1]
        assert (part.device, part.data.shape) == (jax.devices()[-1], (2, 4))


def check_another_sharding_is_that_of_the_model(folder: pathlib.Path) -> None:
    """A run continues with another mesh, or on one device; a save of one is sharded."""
    store = OrbaxParams(folder)
    tree = sharded(2.0, placed("x", "y"))
    for like in (
        sharded(1.0, placed("y", None, shape=(2, 4))),
        sharded(1.0, placed(None, "x")),
        sharded(1.0, placed()),
        jax.tree.map(lambda x: x, jax.device_put(tree, jax.devices()[3])),
    ):
        found = store.load(store.save("g/1", tree), like)
        np.testing.assert_array_equal(found["w"], tree["w"])
        assert_placed(found, like)
        again = store.load(store.save("g/2", found), tree)
        assert_placed(again, tree)
        np.testing.assert_array_equal(again["half"], tree["half"])


def check_nothing_is_gathered(folder: pathlib.Path) -> None:
    """A sharded array is never in one piece, neither in a save nor in a load."""
    tree = {"w": sharded(2.0, placed("x", "y"))["w"]}
    like = {"w": sharded(1.0, placed("y", "x"))["w"]}
    store = OrbaxParams(folder)
    kind: Any = type(tree["w"])
    value, array = kind._value, kind.__array__

    def refuse(leaf: Any) -> None:
        if not leaf.sharding.is_fully_replicated:
            raise AssertionError("gathered")

    def guarded_value(leaf: Any) -> Any:
        refuse(leaf)
        return value.fget(leaf)

    def guarded_array(leaf: Any, *arguments: Any, **named: Any) -> Any:
        refuse(leaf)
        return array(leaf, *arguments, **named)

    kind._value, kind.__array__ = property(guarded_value), guarded_array
    try:
        saved = store.save("g/1", tree)
        found = store.load(saved, like)
    finally:
        kind._value, kind.__array__ = value, array
    np.testing.assert_array_equal(found["w"], tree["w"])


def check_each_part_is_a_chunk_of_its_own(folder: pathlib.Path) -> None:
    """The disk has the shards of the devices, in a form that Orbax's tools read."""
    saved = OrbaxParams(folder).save("g/1", sharded(2.0, placed("x", "y")))
    base = {"driver": "ocdbt", "base": f"file://{folder / saved / 'arrays'}"}
    shapes = set()
    for name in ("0", "1", "2", "3"):
        found = {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}
        array = tensorstore.open(found, open=True).result()
        shapes.add((array.shape, array.chunk_layout.write_chunk.shape))
    assert ((8, 8), (2, 4)) in shapes


def check_shapes_alone_say_where_to(folder: pathlib.Path) -> None:
    """`jax.ShapeDtypeStruct` with shardings: a model that uses no memory."""
    store = OrbaxParams(folder)
    tree = {"w": sharded(2.0, placed("x", "y"))["w"]}
    like = {"w": shape_of((8, 8), jnp.float32, sharding=placed("y", "x"))}
    found = store.load(store.save("g/1", tree), like)
    assert found["w"].sharding == like["w"].sharding
    np.testing.assert_array_equal(found["w"], tree["w"])


def check_precision_may_change(folder: pathlib.Path) -> None:
    """A sharded state gets the model's dtype and placement."""
    store = OrbaxParams(folder)
    saved = store.save("g/1", {"w": sharded(2.0, placed("x", "y"))["w"]})
    like = {"w": sharded(1.0, placed("x", "y"))["half"]}
    found = store.load(saved, like)
    assert found["w"].dtype == jnp.bfloat16
    assert_placed(found, like)


def check_a_misfit_is_named(folder: pathlib.Path) -> None:
    """A sharded array of another shape is refused with its path."""
    store = OrbaxParams(folder)
    saved = store.save("g/1", {"w": sharded(2.0, placed("x", "y"))["w"]})
    like = {"w": jax.device_put(jnp.ones((16, 8)), placed("x", "y"))}
    with pytest.raises(ParamsError, match=r"\['w'\].*\(8, 8\).*\(16, 8\)"):
        store.load(saved, like)


def check_plain_containers_come_whole(folder: pathlib.Path) -> None:
    """Without a model each array comes back in one piece, as from other stores."""
    store = OrbaxParams(folder)
    tree = {"w": sharded(2.0, placed("x", "y"))["w"], "n": 1}
    found = store.load(store.save("g/1", tree))
    assert isinstance(found["w"].sharding, SingleDeviceSharding)
    np.testing.assert_array_equal(found["w"], tree["w"])


def check_what_another_process_saved(folder: pathlib.Path) -> None:
    """A store is sent as a pickle; the save of one device is sharded over eight."""
    store, saved = pickle.loads((folder / "store").read_bytes())
    like = {"w": jax.device_put(jnp.zeros((8, 8)), placed("x", "y")), "n": TREE["n"]}
    found = store.load(saved, like)
    np.testing.assert_array_equal(found["w"], TREE["w"])
    assert_placed(found, like)


def check_reported_shards_stay_where_they_are(folder: pathlib.Path) -> None:
    """They are used as a load would place them; for another sharding they are read."""
    double = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + leaf, tree))
    tree, like = sharded(2.0, placed("x", "y")), sharded(1.0, placed("x", "y"))
    tree |= double({name: tree[name] for name in ("w", "half")})
    found = ReportedState(tree).fitted(like)
    for name in ("w", "half", "keys"):
        assert found[name] is tree[name]
    store = OrbaxParams(folder)
    loaded = store.load(store.save("g/1", tree), like)
    assert_alike(found, loaded)
    assert_placed(found, loaded)
    with pytest.raises(MisfitError):
        ReportedState(tree).fitted(sharded(1.0, placed("y", "x")))


CHECKS: dict[str, Callable[[pathlib.Path], None]] = {
    name.removeprefix("check_"): function
    for name, function in dict(globals()).items()
    if name.startswith("check_")
}


def main(folder: pathlib.Path) -> None:
    """Run all checks, also after one that fails."""
    errors = {}
    for name, check in CHECKS.items():
        own = name == "what_another_process_saved"
        try:
            check(folder if own else pathlib.Path(tempfile.mkdtemp(dir=folder)))
        except Exception:
            errors[name] = traceback.format_exc()
        else:
            errors[name] = ""
    print(json.dumps({"devices": len(jax.devices()), "errors": errors}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
