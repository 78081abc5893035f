"""The official library of safetensors reads the files, and takes them for valid."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from population.params import FileParams, kinds, trees
from tests.params.trees import PLAIN, TREES

_LIBRARY: Any = safetensors  # Not all versions have the same types.


def test_other_programs_read_the_arrays(tmp_path: pathlib.Path) -> None:
    """By their paths within the tree."""
    tree = {"w": jnp.arange(6.0).reshape(2, 3), "deep": [np.arange(3), np.bool_(True)]}
    saved = FileParams(tmp_path).save("g/1", tree)
    found = load_file(tmp_path / saved)
    assert found.keys() == {"['w']", "['deep'][0]", "['deep'][1]"}
    np.testing.assert_array_equal(found["['w']"], np.asarray(tree["w"]))
    np.testing.assert_array_equal(found["['deep'][0]"], np.arange(3))
    assert found["['deep'][1]"].dtype == np.bool_


@pytest.mark.parametrize("name", [*PLAIN, *TREES])
def test_every_file_is_valid(name: str, tmp_path: pathlib.Path) -> None:
    """The library checks all offsets, and finds the bytes of each array."""
    tree = PLAIN[name] if name in PLAIN else TREES[name](2.0)
    saved = FileParams(tmp_path).save("g/1", tree)
    content = (tmp_path / saved).read_bytes()
    found: dict[str, Any] = dict(_LIBRARY.deserialize(content))
    leaves = trees.by_path(tree)
    for place, entry in found.items():
        host = kinds.to_host(leaves[place])
        if isinstance(host, (str, bytes)):
            host = np.frombuffer(host.encode() if isinstance(host, str) else host, "u1")
        assert bytes(entry["data"]) == np.asarray(host).tobytes()
    others = [leaf for place, leaf in leaves.items() if place not in found]
    assert all(type(leaf) in (bool, int, float) for leaf in others)


def test_the_metadata_are_texts_that_other_programs_read(
    tmp_path: pathlib.Path,
) -> None:
    """The layout and the other leaves, as docs/on-disk-format.md describes them."""
    tree = {"a": jnp.ones(3, jnp.int4), "n": 3, "s": "é", "k": jax.random.key(1)}
    saved = FileParams(tmp_path).save("g/1", {**tree, "f": np.float32(2)})
    with _LIBRARY.safe_open(tmp_path / saved, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["path"] == saved
    assert metadata["population"] == "1"
    assert json.loads(metadata["numbers"]) == {"['n']": 3}
    assert json.loads(metadata["special"]) == {"['a']": ["int4", [3]], "['s']": ["str"]}
    assert json.loads(metadata["scalars"]) == ["['f']"]
    layout = json.loads(metadata["layout"])
    assert layout["k"].startswith("key:")
    assert len(metadata["checksum"]) == 16
