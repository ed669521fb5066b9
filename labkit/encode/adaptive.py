"""Adaptive coding: a symbol is as probable as it was frequent so far, in the same circumstances.

Nothing about the probabilities stands in the file. Writer and reader begin with the same counts and learn from the
same symbols, so that each knows at every step what the other knows.
"""

from __future__ import annotations

import numpy as np

from labkit.encode.coder import ONE, Coder, shares
from labkit.variant import Array

_BLOCK = 4096  # values coded at once; the counts are brought up to date between blocks


class Values:
    """Codebook entries, told apart by what kept neighbours are: mostly negative, balanced, mostly positive."""

    def __init__(self, signs: Array, by_sign: bool) -> None:
        self._entries, self._by_sign = len(signs), by_sign
        self._seen = np.ones((3, len(signs)), dtype=np.int64)
        self._look()

    def _look(self) -> None:
        """The shares as the counts are now."""
        self._shares, self._new, self._all = shares(self._seen).astype(np.float64), 0, int(self._seen.sum())

    def code(self, coder: Coder, entries: Array | None, sign: Array) -> Array:
        """entries: int32 [n] or None; sign: [n] of 0, 1, 2. Returns the entries."""
        if self._entries == 1:
            return np.zeros(len(sign), dtype=np.int32)
        cases = sign.astype(np.int64) if self._by_sign else np.zeros(len(sign), dtype=np.int64)
        found = np.zeros(len(sign), dtype=np.int32)
        for start in range(0, len(sign), _BLOCK):
            part = slice(start, start + _BLOCK)
            case, known = cases[part], None if entries is None else entries[part]
            found[part] = coder.symbols(known, self._shares.take(case, axis=0), "values")
            code = case * self._entries + found[part]
            self._seen += 2 * np.bincount(code, minlength=self._seen.size).reshape(self._seen.shape)
            self._new += len(code)
            if 3 * self._new > self._all:  # two thirds more than at the last look
                self._look()
        return found


def code_flags(coder: Coder, flags: Array | None, count: int, width: int, counts: Array | None) -> Array:
    """Flags, a line at a time, told apart by whether `counts` knows anything there and how many of three above are set.

    flags: int32 [count] or None; counts: [count] or None. Returns the flags, bool [count].
    """
    seen, spare = np.ones((8, 2), dtype=np.int64), np.empty((8, 2))
    hint = np.zeros(count, dtype=np.int64) if counts is None else 4 * (counts > 0).astype(np.int64)
    found = np.zeros(
        count + 2 * width + 2, dtype=np.int64
    )  # with a margin before: the first line has one above
    for start in range(0, count, width):
        end = min(start + width, count)
        case = hint[start:end] + found[start:end] + found[start + 1 : end + 1] + found[start + 2 : end + 2]
        known = None if flags is None else flags[start:end]
        spare[:, 0] = seen[:, 0] * (ONE - 2) // seen.sum(1)  # `shares`, for two symbols
        np.subtract(ONE - 2, spare[:, 0], out=spare[:, 1])
        line = coder.symbols(known, spare.take(case, axis=0), "positions")
        found[start + width + 1 : end + width + 1] = line
        seen += 2 * np.bincount(2 * case + line, minlength=seen.size).reshape(seen.shape)
    return found[width + 1 : width + 1 + count] > 0
