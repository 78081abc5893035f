"""A checksum that costs little beside the write: a CRC-32 of sums of rows.

The bytes of a tensor are cut into rows of 2,047 words of 64 bits. Up to 31 rows, always
an odd number, are added, word by word without the carry beyond 64 bits; the CRC-32 is
that of the sums. Bytes after the last whole row go into it as they are. So a changed
word always changes a sum, and because both numbers are odd, so do a sector or page that
is zero or stale, and two that are exchanged, even where all numbers are equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
_WORDS = 2047
_ROWS = 31
ROW = 8 * _WORDS
PIECE = _ROWS * ROW


def pieces(data: Bytes) -> Iterator[Bytes]:
    """Yield a tensor's bytes in pieces: some rows each, then less than a row."""
    start = 0
    while (left := len(data) - start) >= ROW:
        rows = min(_ROWS, left // ROW)
        end = start + (rows - 1 + rows % 2) * ROW
        yield data[start:end]
        start = end
    if left:
        yield data[start:]


def lengths(size: int) -> Iterator[int]:
    """Yield the lengths of the `pieces` of a tensor with so many bytes."""
    while size >= ROW:
        rows = min(_ROWS, size // ROW)
        length = (rows - 1 + rows % 2) * ROW
        yield length
        size -= length
    if size:
        yield size


def continued(checksum: int, piece: Bytes) -> int:
    """Return the checksum of what it was made of and a piece after that.

    Pieces shorter than a row may also be joined to one.
    """
    if len(piece) <= ROW or len(piece) % ROW:
        return zlib.crc32(piece.data, checksum)
    rows = piece.view("<u8").reshape(-1, _WORDS)
    return zlib.crc32(np.add.reduce(rows, axis=0).data, checksum)
