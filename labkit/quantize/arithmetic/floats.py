"""Floats of fewer bits: float16 and bfloat16, made from float32 bit by bit.

A float is a sign, an exponent field e and a fraction field f of F bits (IEEE 754, section 3.4):

    ±(1 + f/2^F) · 2^(e − bias)      and, for e = 0, ±(f/2^F) · 2^(1 − bias): the subnormals, down to 0

The exponent says how far a format reaches, the fraction how fine it is. Unlike the grids of `arithmetic`, the step
between neighbours grows with the number: the error is relative, and no scale has to be chosen. float16 has 5 + 10 bits,
fine but short: beyond 65,519 everything is infinite. bfloat16 has 8 + 7, float32's own reach at a step of 1/128.

Read as a whole number, the bits of a positive float count up with it, through subnormals, normals and infinity.
So rounding is one shift of float32's significand, and a carry out of the fraction is the next exponent by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]


@dataclass(frozen=True)
class FloatFormat:
    """A binary format after IEEE 754: one sign bit, then the exponent's and the fraction's."""

    name: str
    exponent_bits: int
    fraction_bits: int

    @property
    def bits(self) -> int:
        """The size of one number."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field: 15 in float16, 127 in bfloat16 and float32."""
        return int(2 ** (self.exponent_bits - 1) - 1)

    @property
    def infinity(self) -> int:
        """The bits of infinity: an exponent of ones and no fraction. What lies above is NaN."""
        return int((2**self.exponent_bits - 1) << self.fraction_bits)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float(self.decode(np.array(self.infinity - 1)))

    @property
    def smallest(self) -> float:
        """The smallest number above 0, a subnormal: also the step around 0."""
        return float(self.decode(np.array(1)))

    def encode(self, x: NDArray[Any]) -> Bits:
        """The bits of the nearest number of this format, ties to the one whose last bit is 0.

        x: [...] float32. What is too large becomes infinity, what is too small 0, and a NaN stays one (its
        uppermost bits are kept, and it is made a quiet one). Returns x's shape; only the lower `bits` bits are used.
        """
        raw = np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(np.shape(x))
        sign, magnitude = raw >> 31, raw & 0x7FFFFFFF
        exponent = np.maximum(magnitude >> 23, 1).astype(np.int32)  # a subnormal's step is that of exponent 1
        significand = np.where(magnitude >> 23 > 0, 1 << 23, 0) + (magnitude & 0x7FFFFF)
        lowest = 127 + 1 - self.bias  # float32's exponent field at our smallest normal number
        shift = np.minimum(23 - self.fraction_bits + np.maximum(lowest - exponent, 0), 31)
        code = _shift_right_to_even(significand, shift)
        code += (np.maximum(exponent, lowest) - lowest).astype(np.int64) << self.fraction_bits
        code = np.minimum(code, self.infinity)
        quiet = self.infinity | 1 << (self.fraction_bits - 1)
        is_nan = magnitude > 0x7F800000
        code = np.where(is_nan, quiet | (magnitude & 0x7FFFFF) >> (23 - self.fraction_bits), code)
        return (code | sign.astype(np.int64) << (self.bits - 1)).astype(np.uint32)

    def decode(self, bits: NDArray[Any]) -> Floats:
        """The numbers that bits stand for, exactly, in float32. bits: [...] whole numbers below 2^`bits`."""
        code = np.asarray(bits, np.int64)
        magnitude = code & (2 ** (self.bits - 1) - 1)
        exponent, fraction = magnitude >> self.fraction_bits, magnitude & (2**self.fraction_bits - 1)
        significand = fraction + np.where(exponent > 0, 2**self.fraction_bits, 0)
        power = np.maximum(exponent, 1) - self.bias - self.fraction_bits
        value = np.ldexp(significand.astype(np.float64), power)
        value = np.where(
            magnitude == self.infinity, np.inf, np.where(magnitude > self.infinity, np.nan, value)
        )
        return np.asarray(np.copysign(value, np.where(code >> (self.bits - 1), -1.0, 1.0)), np.float32)

    def round(self, x: NDArray[Any]) -> Floats:
        """What becomes of x by a stay in this format: [...] float32 in, the same out."""
        return self.decode(self.encode(x))

    def step(self, x: NDArray[Any]) -> Floats:
        """The distance at x from one number of this format to the next larger magnitude: one unit in the last place.

        x: [...] float32, rounded first. 2^(exponent − F): constant from one power of two to the next, and
        around 0 never below `smallest`. NaN where x is infinite here, or NaN.
        """
        magnitude = self.encode(np.abs(x)).astype(np.int64)
        exponent = np.maximum(magnitude >> self.fraction_bits, 1)
        step = np.ldexp(1.0, exponent - self.bias - self.fraction_bits)
        return np.where(magnitude >= self.infinity, np.nan, step).astype(np.float32)


FLOAT16 = FloatFormat("float16", 5, 10)
BFLOAT16 = FloatFormat("bfloat16", 8, 7)
FLOAT32 = FloatFormat("float32", 8, 23)


def _shift_right_to_even(whole: NDArray[Any], shift: NDArray[Any]) -> NDArray[np.int64]:
    """Divide by 2^shift to the nearest whole number, ties to the even one."""
    whole, shift = whole.astype(np.int64), shift.astype(np.int64)
    quotient, rest, half = whole >> shift, whole & ((1 << shift) - 1), (1 << shift) >> 1
    up = (rest > half) | ((rest == half) & (quotient & 1 == 1) & (shift > 0))
    return np.asarray(quotient + up, np.int64)
