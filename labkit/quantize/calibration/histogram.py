"""A histogram whose range nobody has to know beforehand: one pass, a fixed size, the same counts in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.errors import DataError
from labkit.quantize.arithmetic.grid import Array

BINS = 4096
_SMALLEST_EXPONENT = -149  # of the least positive float32
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Range:
    """The smallest and largest value of an activation that the grid shall hold."""

    low: float
    high: float


class Histogram:
    """Counts of values in even bins, in one pass, though nobody knows beforehand how far the values reach.

    Bin i covers [i·w, (i+1)·w), and the width w is a power of two. Where values come that `bins` bins cannot hold,
    w is doubled: bins 2i and 2i+1 become bin i, and no value changes sides. So w is the least power of two with
    which all values and 0 fit, and the counts are the same in whatever order the values came.

    `low`, `high`: the extremes, exactly. `counts` [B], B ≤ `bins`: from the bin of `low` to the bin of `high`.
    `zeros`: how many values are 0, which every grid holds exactly; they are in `counts` too.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.low, self.high = math.inf, -math.inf
        self.counts = np.zeros(0, np.int64)
        self.zeros = 0
        self._first = 0
        self._exponent = _SMALLEST_EXPONENT

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the bins begin and end: [B + 1]."""
        return self.width * np.arange(self._first, self._first + len(self.counts) + 1.0)

    def add(self, x: Array) -> None:
        """Count the values of `x` [...], float32; DataError if one is NaN or infinite."""
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError("values that are NaN or infinite have no place in a histogram: remove them first")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._make_room()
        self.zeros += x.size - int(np.count_nonzero(x))
        values = x.reshape(-1)
        for start in range(0, values.size, _CHUNK):
            index = self._index(values[start : start + _CHUNK].astype(np.float64)) - self._first
            self.counts += np.bincount(index, minlength=len(self.counts))

    def share_outside(self, range_: Range) -> float:
        """The share of values that a grid for `range_` and 0 cannot hold, values being even within a bin."""
        edges = np.clip(self.edges, self.low, self.high)
        above = _beyond(max(range_.high, 0.0), edges, self.counts)
        below = _beyond(-min(range_.low, 0.0), -edges[::-1], self.counts[::-1])
        return (above + below) / int(self.counts.sum())

    def _index(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """The bin of each value; dividing by a power of two is exact."""
        return np.floor(np.ldexp(values, -self._exponent)).astype(np.intp)

    def _make_room(self) -> None:
        """Widen the bins, and add some, until all from `low` to `high` have one."""
        old = np.arange(self._first, self._first + len(self.counts))
        exponent = _fitting_exponent(min(self.low, 0.0), max(self.high, 0.0), self.bins)
        old >>= min(exponent - self._exponent, 63)  # i → ⌊i / 2⌋ for every doubling
        self._exponent = exponent
        first, last = self._index(np.array([self.low, self.high]))
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, old - first, self.counts)
        self._first, self.counts = int(first), counts


def _beyond(end: float, edges: Array, counts: Array) -> float:
    """How many values lie above `end`. edges: [B + 1], counts: [B]."""
    up_to = np.concatenate([[0], np.cumsum(counts)])
    return float(up_to[-1] - np.interp(end, edges, up_to))


def _fitting_exponent(low: float, high: float, bins: int) -> int:
    """The least k for which bins of width 2^k, one of them beginning at 0, cover low ≤ 0 ≤ high."""
    if not (low or high):
        return _SMALLEST_EXPONENT
    exponent = max(math.frexp(max(-low, high))[1] - (bins - 1).bit_length(), _SMALLEST_EXPONENT)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= bins:
        exponent += 1
    return exponent
