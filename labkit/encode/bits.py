r"""Bit packing: numbers that need 3 bits take 3 bits, not the 32 of an integer.

    pack([5, 0, 7], bits=3)   101 000 111, then zeros up to a whole byte: b"\xa3\x80"

The most significant bit of a number comes first, and the first number lies in the first byte's high bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit.errors import ConfigError, ModelFileError
from labkit.variant import Array


def pack(values: Array | Sequence[int], bits: int) -> bytes:
    """Whole numbers 0 … 2^bits − 1, each in `bits` bits (1 … 32): ⌈n · bits / 8⌉ bytes.

    values: [n]. Raises ConfigError for a number that needs more bits.
    """
    numbers = np.asarray(values, dtype=np.int64)
    _check_width(bits)
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < 2**bits:
        raise ConfigError(f"{bits} bits hold 0 … {2**bits - 1}, not {numbers.min()} … {numbers.max()}")
    return np.packbits((numbers[:, None] >> _places(bits)) & 1).tobytes()


def unpack(data: bytes, bits: int, count: int) -> Array:
    """The `count` numbers that `pack` has packed: int64 [count]. Raises ModelFileError if the bytes are too few."""
    _check_width(bits)
    if count * bits > 8 * len(data):
        raise ModelFileError(f"{count} numbers of {bits} bits do not fit into {len(data)} bytes: truncated")
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    numbers: Array = (found.astype(np.int64) << _places(bits)).sum(1)
    return numbers


def _places(bits: int) -> Array:
    return np.arange(bits - 1, -1, -1)


def _check_width(bits: int) -> None:
    if not 1 <= bits <= 32:
        raise ConfigError(f"bits={bits} is out of range; allowed: 1 ≤ bits ≤ 32")
