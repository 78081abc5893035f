"""A file of tensors in the format of safetensors, with a checksum of every byte.

The file begins with the length of its header, then has the header, which is JSON, and
the bytes of the tensors. The text `__metadata__` in the header is ours: see
docs/on-disk-format.md.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from population.base import codec
from population.base.refusals import shortly
from population.params import checksums, disk, folders, forms, kinds
from population.params.checksums import Bytes

_VERSION = "1"
_BEGIN = b'{"__metadata__":{"checksum":"'  # The header's first bytes.
_BLANK = b"0" * 16  # In place of the two checksums, when that of the header is made.
_LENGTH = 8  # The bytes of the length of the header.
_LONGEST = 100_000_000  # Longer headers are refused by the official readers.
_ALIGNED = 64
_CHUNK = 1 << 20  # So many bytes are written, or read, in one call.
_SHORT = 1 << 16  # Shorter parts are copied, so that several are written in one call.
_NATIVE = {
    native: np.dtype(getattr(ml_dtypes, dtype, dtype))
    for dtype, native in forms.NATIVE.items()
}


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        leaves: The leaves by their path; arrays share no memory with each other.
        layout: The layout of the tree, or None.
    """

    leaves: dict[str, Any]
    layout: str | None


def write(file: pathlib.Path, path: str, tree: Any) -> None:
    """Write a new file.

    Args:
        file: The file.
        path: The path of the save, which `read` must get, too.
        tree: Any pytree that `checks.check` has accepted.
    """
    leaves, structure = jax.tree.flatten(tree)
    form = forms.of(tree, leaves, structure)
    head = _head(form, path, leaves)
    tensors = (_bytes_of(leaves[index]) for index in form.order)
    with disk.created(file) as handle:
        checksum, rest = _write_tensors(handle, head, tensors)
        _seal(head, checksum)
        if rest is None:
            _write_at_start(handle, head)
        else:
            disk.put(handle, head + rest)


def read(file: pathlib.Path, path: str) -> Content:
    """Read a file, and check that it is as it was written, and for this path.

    Raises:
        LostParamsError: It is damaged, or that of another save.
        OSError: It cannot be read.
        Exception: It has the right checksum, but is not of this form.
    """
    place = str(file)
    with folders.opened(file) as stream:
        entries, metadata, checksum = _begin(stream, path, place)
        data = _room(entries[-1].end if entries else 0)
        if b"%08x" % _read_tensors(stream, data, entries, place) != checksum:
            raise disk.damaged(place)
    return Content(_leaves(entries, data, metadata), metadata.get("layout"))


def verify(file: pathlib.Path, path: str) -> None:
    """Check a file like `read`, in little memory; raises the same errors."""
    place = str(file)
    with folders.opened(file) as stream:
        entries, _, checksum = _begin(stream, path, place)
        data, seen = np.empty(checksums.PIECE, np.uint8), 0
        for entry in entries:
            for length in checksums.lengths(entry.end - entry.start):
                _fill(stream, data[:length].data, place)
                seen = checksums.continued(seen, data[:length])
        if b"%08x" % seen != checksum:
            raise disk.damaged(place)


class _Tensor(NamedTuple):
    """What the header says about a tensor."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


def _head(form: forms.Form, path: str, leaves: Sequence[Any]) -> bytearray:
    """Return the length and the header, still without the checksums."""
    numbers = {name: leaves[index] for index, name in form.numbers}
    own = f'","population":"{_VERSION}","path":{json.dumps(path)}'
    if numbers:
        own += f',"numbers":{json.dumps(codec.encode(numbers))}'
    text = _BEGIN + _BLANK + (own + form.end).encode()
    text += b" " * (-(_LENGTH + len(text)) % _ALIGNED)
    if len(text) > _LONGEST:
        raise OSError(
            f"The params {path} cannot be written: their names and texts take "
            f"{len(text)} bytes, of at most {_LONGEST}. Put them into fewer arrays."
        )
    return bytearray(len(text).to_bytes(_LENGTH, "little") + text)


def _seal(head: bytearray, checksum: int) -> None:
    """Put the checksums of the header and of the tensors into the header."""
    start = _LENGTH + len(_BEGIN)
    head[start : start + 16] = b"%08x%08x" % (zlib.crc32(head), checksum)


def _bytes_of(leaf: Any) -> Bytes:
    """Return the bytes of a leaf, without a copy if they lie in order on the host."""
    if isinstance(leaf, (str, bytes)):
        return np.frombuffer(forms.as_bytes(leaf), np.uint8)
    array = np.asarray(jax.random.key_data(leaf) if kinds.is_key(leaf) else leaf)
    if not (array.flags.c_contiguous and array.dtype.isnative):
        array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
    return array.reshape(-1).view(np.uint8)


def _write_tensors(
    handle: int, head: bytes | bytearray, tensors: Iterable[Bytes]
) -> tuple[int, bytes | None]:
    """Write a header that will be replaced, and the tensors, each while it is read.

    Returns:
        The checksum of the tensors; and if they are few bytes, all of them: then
        nothing was written.
    """
    checksum = size = 0
    begun = False
    waiting: list[memoryview] = []  # Short parts, to write in one call.

    def put(part: memoryview) -> None:
        nonlocal size, begun
        if not begun:
            disk.put(handle, head)
            begun = True
        disk.put(handle, b"".join(waiting))
        waiting.clear()
        size = 0
        disk.put(handle, part)

    for tensor in tensors:
        done = ready = 0
        for piece in checksums.pieces(tensor):
            checksum = checksums.continued(checksum, piece)
            ready += len(piece)
            if ready - done >= _CHUNK:  # It is still in the cache.
                put(tensor[done:ready].data)
                done = ready
        if ready - done >= _SHORT or size + ready - done >= _CHUNK:
            put(tensor[done:].data)
        else:
            waiting.append(tensor[done:].data)
            size += ready - done
    if begun:
        put(memoryview(b""))
        return checksum, None
    return checksum, b"".join(waiting)


def _write_at_start(handle: int, data: bytearray) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    disk.put(handle, data)


def _begin(
    stream: io.FileIO, path: str, place: str
) -> tuple[Sequence[_Tensor], Mapping[str, Any], bytes]:
    """Return the tensors, the metadata and the checksum of the tensors."""
    head, checksum = _read_head(stream, place)
    entries, metadata = _parsed(head)
    disk.refuse_others(metadata["path"], path, place)
    size = entries[-1].end if entries else 0
    if os.fstat(stream.fileno()).st_size != _LENGTH + len(head) + size:
        raise disk.damaged(place, "the file has another length than was written")
    return entries, metadata, checksum


def _read_head(stream: io.FileIO, place: str) -> tuple[bytes, bytes]:
    """Return the header, once its checksum fits, and the checksum of the tensors."""
    first = stream.read(_LENGTH)
    length = int.from_bytes(first, "little")
    most = min(_LONGEST, os.fstat(stream.fileno()).st_size - _LENGTH)
    start = len(_BEGIN)
    end = start + len(_BLANK)
    if len(first) < _LENGTH or not end <= length <= most:
        raise disk.damaged(place, "the file does not have the length of its header")
    head = bytearray(length)
    _fill(stream, memoryview(head), place)
    check = head[start:end]
    head[start:end] = _BLANK
    seen = zlib.crc32(head, zlib.crc32(first))
    if not head.startswith(_BEGIN) or check[:8] != b"%08x" % seen:
        raise disk.damaged(place)
    return bytes(head), bytes(check[8:])


def _read_tensors(
    stream: io.FileIO, data: Bytes, entries: Sequence[_Tensor], place: str
) -> int:
    """Fill the memory from the file, and return the checksum of the tensors."""
    checksum = done = ready = 0
    waiting: list[Bytes] = []  # Read in one call, and checked while in the cache.
    for entry in entries:
        for piece in checksums.pieces(data[entry.start : entry.end]):
            waiting.append(piece)
            ready += len(piece)
            if ready - done >= _CHUNK or ready == len(data):
                _fill(stream, data[done:ready].data, place)
                checksum = functools.reduce(checksums.continued, waiting, checksum)
                waiting.clear()
                done = ready
    return checksum


def _fill(stream: io.FileIO, memory: memoryview, place: str) -> None:
    """Read as many bytes as there is room for."""
    while memory:
        count = stream.readinto(memory)
        if not count:
            raise disk.damaged(place, "the file is cut off")
        memory = memory[count:]


def _room(size: int) -> Bytes:
    """Return memory that JAX can use without a copy."""
    room = np.empty(size + _ALIGNED, np.uint8)
    start = -room.ctypes.data % _ALIGNED
    return room[start : start + size]


def _parsed(head: bytes) -> tuple[list[_Tensor], dict[str, Any]]:
    """Return the entries of a header in the order of their bytes, and its metadata."""
    found = json.loads(head)
    metadata = found.pop("__metadata__")
    if not all(type(text) is str for text in metadata.values()):
        raise TypeError("its metadata are not texts")
    if metadata["population"] != _VERSION:
        raise ValueError(
            f"it has version {shortly(metadata['population'])} of the format, and this "
            f"version of the library reads {_VERSION}"
        )
    entries: list[_Tensor] = []
    for name, entry in found.items():
        dtype = _NATIVE[entry["dtype"]]
        start, end = entry["data_offsets"]
        shape = entry["shape"]
        whole = type(shape) is list and all(type(n) is int and n >= 0 for n in shape)
        if not whole or (type(start), type(end)) != (int, int):
            raise TypeError(f"its tensor {shortly(name)} is {shortly(entry)}")
        before = entries[-1].end if entries else 0
        if start != before or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"its tensor {shortly(name)} is not where it should be")
        entries.append(_Tensor(name, dtype, tuple(shape), start, end))
    return entries, metadata


def _leaves(
    entries: Sequence[_Tensor], data: Bytes, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Return the leaves by their path: views of the data, texts and numbers."""
    special = json.loads(metadata.get("special", "{}"))
    scalars = set(json.loads(metadata.get("scalars", "[]")))
    numbers = codec.decode(metadata.get("numbers", "{}"))
    for name, number in numbers.items():
        if type(number) not in (bool, int, float) or not kinds.is_storable(number):
            raise TypeError(f"its leaf {shortly(name)} is {shortly(number)}")
    leaves = dict(numbers)
    for name, leaf in _arrays(entries, data):
        if (entry := special.get(name)) is not None:
            leaf = _converted(leaf, *entry)
        leaves[name] = leaf[()] if name in scalars else leaf
    return leaves


def _arrays(entries: Sequence[_Tensor], data: Bytes) -> Iterator[tuple[str, Any]]:
    for entry in entries:
        part = data[entry.start : entry.end].view(entry.dtype)
        yield forms.name_in_tree(entry.name), part.reshape(entry.shape)


def _converted(part: Any, what: str, shape: Sequence[int] = ()) -> Any:
    """Return a leaf that was stored as bytes: a text, bytes or an array."""
    if what == "str":
        return part.tobytes().decode()
    if what == "bytes":
        return part.tobytes()
    dtype = np.dtype(getattr(ml_dtypes, what, what))
    if dtype.name != what or not kinds.is_numeric(dtype):
        raise TypeError(f"it has the dtype {shortly(what)}")
    return part.view(dtype).reshape(shape)
