"""Run-length coding: "seven zeros" instead of zero, zero, zero, zero, zero, zero, zero.

Its size is a sum over *runs*, each a symbol and a length, and not over positions. So it pays where runs are
long, and makes a message of short ones longer than it was.
"""

from __future__ import annotations

import numpy as np

from labkit.errors import ModelFileError
from labkit.variant import Array


def find_runs(values: Array) -> tuple[Array, Array]:
    """The symbol and the length of every run: values [n] → [r] of the same dtype, int64 [r]; lengths sum to n."""
    values = np.asarray(values)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
    return values[starts], np.diff(np.r_[starts, len(values)]).astype(np.int64)


def expand(symbols: Array, lengths: Array, count: int) -> Array:
    """The message of `count` values that these runs make: [r], [r] → [count].

    Raises ModelFileError, before anything is allocated, unless the lengths are above 0 and sum to `count`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(symbols) != len(lengths) or (lengths < 1).any() or sum(lengths.tolist()) != count:
        raise ModelFileError(f"the runs do not make up {count} values: the coded weights are damaged")
    return np.repeat(symbols, lengths)


def coded_bits(values: Array, symbol_bits: int, length_bits: int) -> int:
    """Bits of a run-length code whose runs take symbol_bits + length_bits each; a longer run is cut into pieces."""
    _, lengths = find_runs(values)
    pieces = -(-lengths // 2**length_bits)  # a length of 1 … 2^length_bits is stored less one
    return int(pieces.sum()) * (symbol_bits + length_bits)
