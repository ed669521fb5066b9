"""One description of a message for three uses: to write it, to read it, and to say what it would cost.

    found = coder.symbols(known, spare, "values")      what is known goes in, what is true comes out

A `Writer` codes the symbols that it is given and returns them. A `Reader` is given none and returns the ones
that were written. A `Price` codes nothing and adds up log2(1/p). So the model of a message, which symbols and
with which probabilities, is one function that runs the same way on either side, and the two cannot disagree.

The compiled coder is constriction's (Bamler 2022), which takes arrays; `range_coder.py` says what it does.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np

from labkit.encode.range_coder import PRECISION, shortest
from labkit.errors import ModelFileError, UnavailableError
from labkit.variant import Array

ONE = 2**PRECISION
"""All probability."""


class Coder(Protocol):
    """What a message is described to."""

    def symbols(self, known: Array | None, spare: Array, part: str) -> Array:
        """Symbols 0 … K − 1, one a row of `spare`: what each symbol has of ONE beyond the 1 that none goes without.

        known: int32 [n], None where it is read; spare: [n, K], K ≥ 2, whole numbers from 0 on in int64 or float64, each
        row ONE − K in all; part: what to book the bits under. Returns int32 [n].
        """


def shares(counts: Array) -> Array:
    """ONE − K parted as the counts are, row by row; the last symbol has what is left. int64 [n, K], as are they."""
    all_spare = ONE - counts.shape[1]
    spare: Array = counts * all_spare // counts.sum(1, keepdims=True)
    spare[:, -1] += all_spare - spare.sum(1)
    return spare


class Writer:
    """Codes what it is given."""

    def __init__(self) -> None:
        self._encoder = _library().queue.RangeEncoder()

    def symbols(self, known: Array | None, spare: Array, part: str) -> Array:
        """Code what is known, and return it."""
        assert known is not None  # noqa: S101 - a writer is always told
        if len(known):
            self._encoder.encode(known.astype(np.int32), _model(), _float(spare))
        return known

    def finish(self) -> bytes:
        """The shortest bytes that hold the message."""
        settled, (low, width) = self._encoder.pos()
        sealed = self._encoder.get_compressed()
        number = int.from_bytes(sealed.astype(">u4").tobytes().ljust(4 * settled + 8, b"\0"), "big")
        number -= (number - low) % 2**64  # sealing has moved it up within the interval
        return shortest(number, width, 4 * settled + 8)


class Reader:
    """Finds out what was written."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self._decoder = _library().queue.RangeDecoder(words)

    def symbols(self, known: Array | None, spare: Array, part: str) -> Array:
        """Find out the next symbols. Raises ModelFileError where no message could go on so."""
        if not len(spare):
            return np.zeros(0, np.int32)
        try:
            found: Array = self._decoder.decode(_model(), _float(spare))
        except AssertionError:
            raise ModelFileError("the coded weights are damaged: no symbol has this code") from None
        return found


class Price:
    """Adds up what each symbol costs, in bits, part by part."""

    def __init__(self) -> None:
        self.bits: dict[str, float] = {}

    def symbols(self, known: Array | None, spare: Array, part: str) -> Array:
        """Add up what these symbols cost."""
        assert known is not None  # noqa: S101
        cost = PRECISION - np.log2(1 + spare[np.arange(len(known)), known])
        self.bits[part] = self.bits.get(part, 0.0) + float(cost.sum())
        return known


def _library() -> Any:
    """The compiled coder, or UnavailableError with the line that installs it."""
    try:
        import constriction
    except ImportError:
        raise UnavailableError(
            "coded weights need the package constriction: pip install 'constriction>=0.5,<0.6'"
        ) from None
    return constriction.stream


@functools.cache
def _model() -> Any:
    return _library().model.Categorical(perfect=False)


def _float(spare: Array) -> Array:
    """The type that constriction reads; it gives every symbol its 1 of its own accord."""
    return spare.astype(np.float64, copy=False)
