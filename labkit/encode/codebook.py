"""Codebooks: the few different values that a tensor's weights share, and the bytes that list them.

A layer clustered to 8 values needs 3 bits a weight at most, and the 8 values once. They are stored as small as
they come back bit for bit: whole numbers times a power of two (1 byte each), float16 (2), else float32 (4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.errors import ModelFileError
from labkit.variant import Array

MOST_ENTRIES = 255
FLOAT32, FLOAT16, INT8 = 0, 1, 2
_BYTES = {FLOAT32: 4, FLOAT16: 2, INT8: 1}


@dataclass(frozen=True)
class Codebook:
    """The values other than zero, ascending: float32 [K]. `form` says how they are stored."""

    values: Array
    form: int
    exponent: int = 0

    @property
    def signs(self) -> Array:
        """−1, 0 or 1 for every value: int8 [K]; 0 where it is no number."""
        signs: Array = np.sign(np.nan_to_num(self.values)).astype(np.int8)
        return signs

    def with_zero(self) -> Array:
        """What each entry stands for, 0.0 first: float32 [K + 1]."""
        return np.concatenate([np.zeros(1, np.float32), self.values])

    def to_bytes(self) -> bytes:
        """K in one byte, then the exponent if there is one, then the values."""
        head = bytes([len(self.values)])
        if self.form == INT8:
            whole = np.ldexp(self.values.astype(np.float64), -self.exponent).astype(np.int8)
            return head + self.exponent.to_bytes(1, "big", signed=True) + whole.tobytes()
        return head + self.values.astype("<f2" if self.form == FLOAT16 else "<f4").tobytes()


def read_codebook(data: bytes, form: int) -> tuple[Codebook, int]:
    """What `to_bytes` wrote at the beginning of `data`, and how many bytes it took; ModelFileError if cut off."""
    if form not in _BYTES or not data:
        raise ModelFileError("a codebook of the coded weights is damaged")
    count, start = data[0], 2 if form == INT8 else 1
    end = start + count * _BYTES[form]
    if len(data) < end:
        raise ModelFileError("a codebook of the coded weights is cut off")
    if form == INT8:
        exponent = int.from_bytes(data[1:2], "big", signed=True)
        whole = np.frombuffer(data[2:end], np.int8)
        with np.errstate(over="ignore"):
            values = np.ldexp(whole.astype(np.float64), exponent).astype(np.float32)
        return Codebook(values, form, exponent), end
    values = np.frombuffer(data[1:end], "<f2" if form == FLOAT16 else "<f4").astype(np.float32)
    return Codebook(values, form), end


def split(tensor: Array) -> tuple[Array, Codebook] | None:
    """The entry of every weight, 0 for +0.0 and 1 … K for the codebook's, with the codebook; None if K > 255.

    tensor: float32, any shape → int32 of that shape. −0.0 and NaN are values like any other: every bit comes back.
    """
    patterns, inverse = np.unique(tensor.ravel().view(np.uint32), return_inverse=True)
    nonzero = patterns[patterns != 0]
    if len(nonzero) > MOST_ENTRIES:
        return None
    order = np.argsort(nonzero.view(np.float32), kind="stable")
    values = nonzero[order].view(np.float32)
    entry = np.zeros(len(patterns), dtype=np.int32)
    entry[np.flatnonzero(patterns)[order]] = np.arange(1, len(values) + 1)
    return entry[inverse].reshape(tensor.shape), _smallest(values)


def _smallest(values: Array) -> Codebook:
    """The codebook in the form that takes the fewest bytes and loses no bit."""
    exponent = _common_exponent(values)
    if exponent is not None:
        return Codebook(values, INT8, exponent)
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.astype(np.float16).astype(np.float32)
    exact = bool((half.view(np.uint32) == values.view(np.uint32)).all())
    return Codebook(values, FLOAT16 if exact else FLOAT32)


def _common_exponent(values: Array) -> int | None:
    """The largest e for which every value is a whole number −127 … 127 times 2^e; None if there is none."""
    if not len(values) or not np.isfinite(values).all() or (values == 0).any():
        return None
    mantissa, exponent = np.frexp(values.astype(np.float64))
    bits = (mantissa * 2**24).astype(np.int64)  # float32 has 24 of them
    unused = np.log2(bits & -bits).astype(np.int64)
    common = int((exponent - 24 + unused).min())
    whole = np.ldexp(values.astype(np.float64), -common)
    return common if -128 <= common <= 127 and np.abs(whole).max() <= 127 else None
