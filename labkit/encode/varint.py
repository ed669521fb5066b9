"""Whole numbers in as few bytes as they need: 7 bits a byte, the lowest first, the eighth bit set if more follow."""

from __future__ import annotations

from labkit.errors import ModelFileError

_LARGEST = 2**35


def varint(number: int) -> bytes:
    r"""The bytes of a number from 0 on: 300 → b"\xac\x02"."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at byte `at`, and where the next thing begins; ModelFileError if cut off or too long."""
    number, shift = 0, 0
    while True:
        if at >= len(data) or number > _LARGEST:
            raise ModelFileError("a number in the coded weights is cut off or too large: the file is damaged")
        number |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return number, at
