"""Relative indices: of a sparse weight matrix keep what is not zero, and how far it is to the next.

    0 0 3 0 0 0 0 0 0 1   with 2 bits a gap (1 … 4)
    gaps 3 4 3, values 3 0 1: the second is a filler, a zero that bridges a gap too wide for 2 bits

This is Deep Compression's way (Han, Mao and Dally 2016, section 2 and figure 2). Wide gaps need many bits for
every weight, narrow ones many fillers: the best width lies where both cost the same.
"""

from __future__ import annotations

import numpy as np

from labkit.errors import ConfigError, ModelFileError
from labkit.variant import Array


def to_gaps(values: Array, bits: int) -> tuple[Array, Array]:
    """The gaps, 1 … 2^bits, and the values that they lead to, fillers included.

    values: [n] with zeros → int64 [m], [m] of the same dtype. Zeros after the last value take no gap.
    """
    if not 1 <= bits <= 32:
        raise ConfigError(f"bits={bits} is out of range; allowed: 1 ≤ bits ≤ 32")
    places = np.flatnonzero(values)
    distances = np.diff(np.r_[-1, places])
    fillers = (distances - 1) // 2**bits
    ends = np.cumsum(fillers + 1) - 1
    gaps = np.full(int((fillers + 1).sum()), 2**bits, dtype=np.int64)
    kept = np.zeros(len(gaps), dtype=values.dtype)
    gaps[ends] = distances - fillers * 2**bits
    kept[ends] = values[places]
    return gaps, kept


def from_gaps(gaps: Array, kept: Array, count: int) -> Array:
    """The `count` values of which `to_gaps` has left the zeros out.

    Raises ModelFileError if a gap is no gap, or leads past the end.
    """
    gaps = np.asarray(gaps, dtype=np.int64)
    if len(gaps) != len(kept) or (gaps < 1).any() or sum(gaps.tolist()) > count:
        raise ModelFileError(f"the gaps lead past the last of {count} values: the coded weights are damaged")
    values = np.zeros(count, dtype=np.asarray(kept).dtype)
    values[np.cumsum(gaps) - 1] = kept
    return values
