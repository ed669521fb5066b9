"""Numbers deflated: all their first bytes, then all second bytes, …, since exponents are alike and stand together.

What is read goes straight to its place, a little at a time: a few bytes may declare a huge tensor, and reading it
takes no memory beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from labkit.errors import ModelFileError
from labkit.variant import Array

_AT_ONCE = 2**16
"""Bytes, or numbers, that are worked on at once."""


def pack(plain: Array) -> bytes:
    """The deflated bytes of a tensor, those of equal place together."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    planes = np.frombuffer(little_endian(plain), np.uint8).reshape(-1, plain.itemsize).T
    return packer.compress(planes.tobytes()) + packer.flush()


def unpack(data: bytes, cells: Array) -> None:
    """Fill uint8 [n, itemsize] with what was packed. Raises ModelFileError for damage, and for any other size."""
    count, at = len(cells), 0
    for piece in _inflate(data):
        while len(piece):
            if at == cells.size:
                raise ModelFileError("a packed tensor is longer than its shape")
            plane, start = divmod(at, count)
            here = piece[: count - start]
            cells[start : start + len(here), plane] = here
            at, piece = at + len(here), piece[len(here) :]
    if at < cells.size:
        raise ModelFileError(f"a tensor of {count} numbers has {at} bytes: damaged")


def little_endian(plain: Array) -> bytes:
    """The tensor's own bytes, the least of each number first."""
    return plain.astype(plain.dtype.newbyteorder("<")).tobytes()


def in_pieces(count: int) -> Iterator[slice]:
    """0 … count, _AT_ONCE at a time."""
    return (slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE))


def _inflate(data: bytes) -> Iterator[Array]:
    """What was deflated, uint8, a little at a time. Raises ModelFileError for what is cut off, or goes on behind."""
    unpacker, behind = zlib.decompressobj(-15), False
    for part in in_pieces(len(data)):
        left, behind = data[part], unpacker.eof
        while not unpacker.eof:
            try:
                piece = unpacker.decompress(left, _AT_ONCE)
            except zlib.error as error:
                raise ModelFileError(f"a packed tensor is damaged: {error}") from None
            yield np.frombuffer(piece, np.uint8)
            left = unpacker.unconsumed_tail
            if not left and len(piece) < _AT_ONCE:
                break
    if not unpacker.eof or unpacker.unused_data or behind:
        raise ModelFileError("a packed tensor is cut off, or longer than its shape")
