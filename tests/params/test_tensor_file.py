"""The file of a save: what it keeps, what it costs, and every damage is found."""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from population import ParamsError
from population.base import LostParamsError
from population.params import FileParams, checksums, kinds, tensor_file
from tests.helpers import missing
from tests.params.test_disk import folders_and_files
from tests.params.trees import PLAIN, TREES, assert_alike, weights

ROOT = str(pathlib.Path(__file__).resolve().parents[2])
SMALL = {"w": np.arange(3.0), "n": 1, "s": "text"}


def saved_in(folder: pathlib.Path, tree: Any) -> tuple[FileParams, str, pathlib.Path]:
    """A store with one save, and the file of the save."""
    store = FileParams(folder)
    saved = store.save("g/1", tree)
    return store, saved, folder / saved


def test_each_flipped_bit_is_found(tmp_path: pathlib.Path) -> None:
    """In the length, the header, the checksum itself and the numbers."""
    store, saved, file = saved_in(tmp_path, SMALL)
    content = file.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(LostParamsError, match="are damaged"):
            store.load(saved)
    file.write_bytes(content)
    assert_alike(store.load(saved), SMALL)


def test_each_other_length_is_found(tmp_path: pathlib.Path) -> None:
    """A file that is cut off anywhere, or has something at its end."""
    store, saved, file = saved_in(tmp_path, SMALL)
    content = file.read_bytes()
    for wrong in [*(content[:end] for end in range(len(content))), content + b"\0"]:
        file.write_bytes(wrong)
        with pytest.raises(LostParamsError, match="are damaged"):
            store.load(saved)


NUMBERS: dict[str, np.ndarray[Any, Any]] = {
    "two": np.full(400_000, 2.0),
    "one": np.full(400_000, 1.0, np.float32),
    "small": np.arange(400_000) % 7,
    "random": np.random.default_rng(0).standard_normal(400_000),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_each_sector_or_page_that_was_not_written_is_found(
    name: str, size: int, tmp_path: pathlib.Path
) -> None:
    """After a power cut it is zero, although all numbers may be equal."""
    store, saved, file = saved_in(tmp_path, {"w": NUMBERS[name]})
    content = file.read_bytes()
    choose = random.Random(0)
    begins = range(size, len(content) - size, size)
    for start in {begins[-1], *choose.choices(begins, k=15)}:
        for end in (start + size, start + 4 * size, len(content)):
            end = min(end, len(content))
            zeros = content[:start] + bytes(end - start) + content[end:]
            file.write_bytes(zeros)
            with pytest.raises(LostParamsError, match="checksum"):
                store.load(saved)


def of_bytes(content: bytes | bytearray) -> int:
    """The checksum of a tensor with these bytes."""
    checksum = 0
    for piece in checksums.pieces(np.frombuffer(content, np.uint8)):
        checksum = checksums.continued(checksum, piece)
    return checksum


@pytest.mark.parametrize("size", [8, 64, 512, 4096])
def test_each_two_blocks_that_were_exchanged_are_found(size: int) -> None:
    """They are within one sum, or in two; and so is one that was written twice."""
    content = NUMBERS["random"].tobytes()
    whole, choose = of_bytes(content), random.Random(0)
    for _ in range(60):
        one, other = (size * choose.randrange(len(content) // size) for _ in range(2))
        if one == other:
            continue
        exchanged = bytearray(content)
        exchanged[one : one + size] = content[other : other + size]
        assert of_bytes(exchanged) != whole
        exchanged[other : other + size] = content[one : one + size]
        assert of_bytes(exchanged) != whole


def test_a_row_in_which_numbers_would_cancel_out_does_not_exist() -> None:
    """As many equal numbers as a sum has are never zero together."""
    for count in range(1, checksums.PIECE // 8 + 3000, 997):
        twos = np.full(count, 2.0).tobytes()
        assert of_bytes(twos) != of_bytes(bytes(len(twos)))


def sealed(header: Any, data: bytes = b"") -> bytes:
    """A file with this header and right checksums."""
    text = header if isinstance(header, str) else json.dumps(header)
    found = text.replace(" ", "").encode() if not isinstance(header, str) else header
    head = found if isinstance(found, bytes) else found.encode()
    length = len(head).to_bytes(8, "little")
    sums = b"%08x%08x" % (zlib.crc32(length + head), of_bytes(data))
    return length + head.replace(b"0" * 16, sums, 1) + data


def told(**changes: Any) -> dict[str, Any]:
    """A valid header for three numbers, with changes; None removes an entry."""
    own = {"checksum": "0" * 16, "population": "1", "path": "1-0123abcd.safetensors"}
    own |= {"layout": '{"w":"numpy"}'} | changes.pop("own", {})
    found = {
        "__metadata__": {key: text for key, text in own.items() if text is not None},
        "['w']": {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]},
    }
    return {key: entry for key, entry in (found | changes).items() if entry is not None}


def tensor(dtype: Any = "F64", shape: Any = (3,), offsets: Any = (0, 24)) -> Any:
    """An entry of a header."""
    return {"['w']": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


BEGIN = '{"__metadata__":{"checksum":"' + "0" * 16 + '",'
INVALID: dict[str, Any] = {
    "deep lists": BEGIN + '"a":' + "[" * 100_000,
    "cut off": BEGIN,
    "no json": BEGIN + "}}",
    "metadata of lists": told(own={"layout": []}),
    "no version": told(own={"population": None}),
    "a newer version": told(own={"population": "2"}),
    "no path": told(own={"path": None}),
    "a layout of another codec": told(own={"layout": '{"!x":1}'}),
    "a layout of other leaves": told(own={"layout": '{"v":"numpy"}'}),
    "a deep layout": told(own={"layout": "[" * 100_000}),
    "numbers that are lists": told(own={"numbers": '{"a":[1]}'}),
    "numbers that are none": told(own={"numbers": "null"}),
    "long numbers": told(own={"numbers": '{"a":' + "9" * 50 + "}"}),
    "scalars of more": told(own={"scalars": "3"}),
    "special in a list": told(own={"special": '["int4"]'}),
    "an unknown kind": told(own={"special": '{"[\'w\']":["finfo",[24]]}'}),
    "objects": told(own={"special": '{"[\'w\']":["object",[3]]}'}),
    "dates": told(own={"special": '{"[\'w\']":["datetime64[s]",[3]]}'}),
    "another kind's size": told(own={"special": '{"[\'w\']":["int4",[999]]}'}),
    "an unknown dtype": told(**tensor(dtype="F128")),
    "a dtype in a list": told(**tensor(dtype=["F64"])),
    "a negative shape": told(**tensor(shape=[-1, -3])),
    "a huge shape": told(**tensor(shape=[2**62, 2**62])),
    "a shape of texts": told(**tensor(shape=["3"])),
    "a shape of fractions": told(**tensor(shape=[3.0])),
    "one offset": told(**tensor(offsets=[0])),
    "offsets of texts": told(**tensor(offsets=["0", "24"])),
    "a hole": told(**tensor(offsets=[8, 32])),
    "an overlap": told(v={"dtype": "F64", "shape": [2], "data_offsets": [8, 24]}),
    "a tensor that is a list": told(**{"['w']": [1]}),
    "a tensor that is none": told(v=1),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_header_with_right_checksums_is_a_params_error(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Another program or version wrote it: no crash, and no memory for its numbers."""
    file = tmp_path / "1-0123abcd.safetensors"
    file.write_bytes(sealed(told(), np.arange(3.0).tobytes()))
    np.testing.assert_array_equal(FileParams(tmp_path).load(file.name)["w"], [0, 1, 2])
    file.write_bytes(sealed(INVALID[name], np.arange(3.0).tobytes()))
    with pytest.raises(ParamsError) as raised:
        FileParams(tmp_path).load(file.name)
    assert len(str(raised.value)) < 1000
    assert file.name in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        bytes(4096),
        b"\xff" * 100,
        (2**63 - 1).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{}",
        b"\2\0\0\0\0\0\0\0{}",
        b"\x40\0\0\0\0\0\0\0" + b"[" * 64,
        sealed("[1," + "0" * 100 + "]"),
        sealed('{"a":{"dtype":"F64","shape":[3],"data_offsets":[0,24]}}' + " " * 99),
    ],
)
def test_a_file_of_another_program_is_lost(
    content: bytes, tmp_path: pathlib.Path
) -> None:
    """Whatever length it claims to have, it is not what was written."""
    store, saved, file = saved_in(tmp_path, SMALL)
    file.write_bytes(content)
    with pytest.raises(LostParamsError, match="are damaged"):
        store.load(saved)


def test_a_sparse_file_takes_no_memory(tmp_path: pathlib.Path) -> None:
    """Its size is compared with its header before any memory is made for it."""
    store, saved, file = saved_in(tmp_path, SMALL)
    os.truncate(file, 1 << 40)
    with pytest.raises(LostParamsError, match="another length"):
        store.load(saved)


# JAX has names for these, but no arrays of them on the CPU.
LATER = {"float6_e2m3fn", "float6_e3m2fn", "int1", "uint1"}


def dtypes() -> list[str]:
    """All dtypes of `ml_dtypes`, and the complex and boolean ones."""
    found = [name for name in dir(ml_dtypes) if name not in ("finfo", "iinfo")]
    own = [name for name in found if isinstance(getattr(ml_dtypes, name), type)]
    return [*own, "bool", "complex64", "complex128", "float16", ">f4", ">i8", ">c8"]


@pytest.mark.parametrize("name", dtypes())
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3)])
def test_every_dtype_comes_back_or_is_refused_by_its_place(
    name: str, shape: tuple[int, ...], tmp_path: pathlib.Path
) -> None:
    """As NumPy arrays, scalars and, if JAX has them, arrays of JAX."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    array = np.ones(shape, dtype)
    tree = {"a": {"n": array, "other": np.ones(5)}, "b": np.ones((), dtype)[()]}
    store = FileParams(tmp_path)
    if not kinds.is_numeric(dtype):
        with pytest.raises(TypeError, match=r"params\['a'\]\['n'\]"):
            store.save("g/1", tree)
        return
    if hasattr(jnp, name) and name not in LATER:
        tree["j"] = jnp.asarray(array)
    found = store.load(store.save("g/1", tree))
    assert found["a"]["n"].dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["a"]["n"], array)
    if dtype.isnative:
        assert_alike(found, tree)
        assert_alike(store.load(store.save("g/1", tree), tree), tree)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.broadcast_to(np.arange(3.0), (4, 3)),
        np.arange(40, dtype=np.uint8)[1:33].view(np.float64),  # Not aligned.
        np.arange(30_000.0).reshape(100, 300).T,
        np.arange(5)[:0],
    ],
)
def test_an_array_in_any_order_comes_back(
    array: np.ndarray[Any, Any], tmp_path: pathlib.Path
) -> None:
    """The file has its numbers in the order of C."""
    store, saved, _ = saved_in(tmp_path, {"a": array, "b": np.ones(3)})
    np.testing.assert_array_equal(store.load(saved)["a"], array)
    np.testing.assert_array_equal(
        store.load(saved, {"a": array, "b": 0 * np.ones(3)})["a"], array
    )


KEYS = [
    "__metadata__",
    "___metadata__",
    "'",
    '"',
    "\\",
    "é",
    "\n",
    "\ud800",
    "",
    "]['a",
]


def test_keys_of_any_text_are_names_of_tensors(tmp_path: pathlib.Path) -> None:
    """They are kept as they are."""
    tree = {key: np.full(2, n) for n, key in enumerate(KEYS)}
    store, saved, _ = saved_in(tmp_path, tree)
    assert_alike(store.load(saved, tree), tree)
    del tree["\ud800"]  # The layout is Unicode.
    saved = store.save("g/1", tree)
    assert_alike(store.load(saved), tree)


class Named:
    """A node whose keys are texts as they are."""

    def __init__(self, *pairs: tuple[str, Any]) -> None:
        self.pairs = pairs


jax.tree_util.register_pytree_with_keys(
    Named,
    lambda node: (node.pairs, tuple(key for key, _ in node.pairs)),
    lambda keys, leaves: Named(*zip(keys, leaves, strict=True)),
)


def test_a_leaf_may_have_the_name_of_the_metadata(tmp_path: pathlib.Path) -> None:
    """The format has another meaning for it."""
    names = ["__metadata__", "___metadata__", "_metadata__", "metadata__"]
    tree = Named(*((name, np.full(2, n)) for n, name in enumerate(names)))
    store, saved, _ = saved_in(tmp_path, tree)
    for found, (name, leaf) in zip(
        store.load(saved, tree).pairs, tree.pairs, strict=True
    ):
        assert found[0] == name
        np.testing.assert_array_equal(found[1], leaf)


def test_two_leaves_of_one_name_are_refused(tmp_path: pathlib.Path) -> None:
    """One of them would be lost."""
    with pytest.raises(TypeError, match="two leaves have one path"):
        FileParams(tmp_path).save("g/1", Named(("a", np.ones(1)), ("a", np.ones(1))))


def test_equal_structures_with_other_keys_or_kinds_are_kept_apart(
    tmp_path: pathlib.Path,
) -> None:
    """What was found out about a tree is used only for one that is the same."""
    store = FileParams(tmp_path)
    trees: list[Any] = [
        {1: np.ones(2)},
        {True: np.ones(2)},
        {1.0: np.ones(2)},
        {"a": np.ones(2)},
        {"a": jnp.ones(2)},
        {"a": np.ones(2, np.float32)},
        {"a": np.float32(1)},
        {"a": jnp.float32(1)},
        {"a": 1},
        {"a": 2},
        {"a": True},
        {"a": 1.5},
        {"a": "1"},
        {"a": "22"},
        {"a": b"22"},
        [1, np.ones(2)],
        (1, np.ones(2)),
    ]
    for _ in range(2):
        for tree in trees:
            saved = store.save("g/1", tree)
            for found in (store.load(saved), store.load(saved, tree)):
                assert_alike(found, tree)
                assert list(map(repr, found)) == list(map(repr, tree))


def test_a_tree_like_one_before_is_checked_again(tmp_path: pathlib.Path) -> None:
    """Of equal structure, but with what a store cannot keep."""
    store = FileParams(tmp_path)
    store.save("g/1", {"a": 1, "b": np.ones(2)})
    ma: Any = np.ma
    for bad in (2**64, "\ud800", object(), ma.masked_array([1.0, 2.0], [True, False])):
        with pytest.raises(TypeError, match=r"params\['a'\] cannot be stored"):
            store.save("g/1", {"a": bad, "b": np.ones(2)})


@pytest.mark.parametrize("with_model", [True, False])
def test_loaded_arrays_may_be_changed_and_donated(
    with_model: bool, tmp_path: pathlib.Path
) -> None:
    """They share one read of the file, but no memory with each other."""
    sizes = (16_000, 4096, 1000, 16, 3, 1)
    tree: dict[str, Any] = {f"n{n}": np.full(n, 1.0, np.float32) for n in sizes}
    tree |= {f"j{n}": jnp.full(n, 1.0, jnp.float32) for n in sizes}
    store, saved, _ = saved_in(tmp_path, tree)
    step = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    found = store.load(saved, tree if with_model else None)
    arrays = {name: found[name] for name in found if name.startswith("j")}
    for number, name in enumerate(n for n in found if n.startswith("n")):
        assert found[name].flags.writeable
        assert found[name].flags.aligned
        found[name][:] = number
    for _ in range(5):
        arrays = step(arrays)
    for number, name in enumerate(n for n in found if n.startswith("n")):
        np.testing.assert_array_equal(found[name], np.full_like(found[name], number))
    for array in arrays.values():
        np.testing.assert_array_equal(array, np.full(array.shape, 6.0))
    assert_alike(store.load(saved), tree)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_leaves_no_part_of_a_save(
    size: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it gets full, and also if a save is interrupted there."""
    store = FileParams(tmp_path)
    store.save("g/1", {"w": np.ones(size)})
    before, write = folders_and_files(tmp_path), os.write

    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        for room in (0, 10, 300, 8 * size):
            left = [room]

            def limited(handle: int, data: Any, left: Any = left) -> int:
                if not left[0]:
                    raise error  # noqa: B023
                written = write(handle, memoryview(data)[: left[0]])
                left[0] -= written
                return written

            with monkeypatch.context() as patch:
                patch.setattr(os, "write", limited)
                with pytest.raises(type(error)):
                    store.save("g/2", {"w": np.ones(size)})
            assert folders_and_files(tmp_path) == before


def test_a_system_that_writes_little_at_a_time_is_asked_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write may take fewer bytes than it is given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:50_001]))
    tree = {"w": np.arange(100_000.0), "b": np.ones(3)}
    store, saved, _ = saved_in(tmp_path, tree)
    assert_alike(store.load(saved), tree)


@pytest.mark.parametrize("size", [0, 1, 2046, 2047, 2048, 4094, 63457, 63458, 200_000])
def test_arrays_of_any_size_come_back(size: int, tmp_path: pathlib.Path) -> None:
    """Around the sizes at which the checksum changes its way."""
    tree = {"a": np.arange(float(size)), "b": np.arange(size, dtype=np.int8)}
    tree |= {f"c{n}": np.arange(n, dtype=np.float32) for n in range(5)}
    store, saved, _ = saved_in(tmp_path, tree)
    assert_alike(store.load(saved), tree)


def test_many_leaves_are_saved_and_loaded(tmp_path: pathlib.Path) -> None:
    """A hundred thousand, of several kinds."""
    tree: dict[str, Any] = {
        f"{n}": np.full(n % 3, n) if n % 2 else n for n in range(99_000)
    }
    tree |= {f"j{n}": jnp.float32(n) for n in range(1000)}
    store, saved, _ = saved_in(tmp_path, tree)
    found = store.load(saved)
    assert found.keys() == tree.keys()
    for name in random.Random(0).sample(sorted(tree), 500):
        assert type(found[name]) is type(tree[name])
        np.testing.assert_array_equal(found[name], tree[name])


def test_large_arrays_are_where_jax_can_use_them(tmp_path: pathlib.Path) -> None:
    """An array of whole multiples of 64 bytes needs no copy, whatever lies beside."""
    tree = {"a": np.ones(3), "b": np.ones(64), "c": np.int8(1), "d": np.ones((8, 8))}
    _, saved, file = saved_in(tmp_path, tree)
    leaves = tensor_file.read(file, saved).leaves
    for name in ("['b']", "['d']"):
        assert leaves[name].ctypes.data % 64 == 0


@pytest.mark.parametrize("name", [*PLAIN, *TREES])
def test_a_file_does_not_depend_on_what_was_saved_before(
    name: str, tmp_path: pathlib.Path
) -> None:
    """The second save of a structure has the bytes of the first, but for its path."""
    tree = PLAIN[name] if name in PLAIN else TREES[name](1.0)
    store = FileParams(tmp_path)
    first, second = (store.save("g/1", tree) for _ in range(2))
    one, other = ((tmp_path / path).read_bytes() for path in (first, second))
    start = len(b'12345678{"__metadata__":{"checksum":"') + 16
    assert one[start:].replace(first.encode(), second.encode()) == other[start:]


def test_threads_of_one_structure_do_not_mix_their_numbers(
    tmp_path: pathlib.Path,
) -> None:
    """Only what their structure says is shared."""
    store = FileParams(tmp_path)
    paths = [store.save("g/1", weights(float(n))) for n in range(20)]
    for number, path in enumerate(paths):
        assert_alike(store.load(path, weights(0.0)), weights(float(number)))


CHILD = """
import sys
import jax, jax.numpy as jnp, numpy as np
from population.params import FileParams

MB = 1 << 20


def peak(function):
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    found = function()
    return (memory("VmHWM") - before) / MB, found


def memory(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))


def tree(make):
    return {str(n): make((15, MB // 4), np.float32) for n in range(20)}


store = FileParams(sys.argv[1])
kinds = {"jax": jnp.ones, "numpy": np.ones}
state = tree(kinds[sys.argv[2]])
small = {"w": kinds[sys.argv[2]](3)}
store.load(store.save("small", small), small)
saving, path = peak(lambda: store.save("g", state))
loading, found = peak(lambda: store.load(path, state))
assert all((np.asarray(found[name]) == 1).all() for name in state)
print(saving, loading)
"""


@pytest.mark.parametrize("kind", ["jax", "numpy"])
def test_a_large_state_needs_little_memory_beside_itself(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """Of 300 MB: a tenth at most for a save, and one copy and a tenth for a load."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        missing("/proc/self/clear_refs, to know the peak of the memory,")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), kind],
        env={**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    saving, loading = map(float, done.stdout.split())
    assert saving <= 30
    assert 290 <= loading <= 330
