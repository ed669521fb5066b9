"""The arithmetic of quantization: floats to whole numbers on an even grid, and back.

    q = clamp(round(x / scale) + zero_point)        x ≈ scale · (q − zero_point)

`scale` is the distance between two neighbours on the grid, `zero_point` the whole number that stands for
exactly 0: zero is what padding and ReLU produce, so it must not be off by half a step. Rounding is half to
even, as ONNX's QuantizeLinear has it, and every bit agrees with ONNX Runtime's.

*Symmetric* puts zero_point in the middle: the product of two numbers then needs no correction, which is what
weights want. *Asymmetric* spends the grid on [low, high] as they are: after a ReLU nothing is negative, and a
symmetric grid would waste half of itself. Per channel, each output channel of a weight has its own scale:
one channel with large weights then cannot flatten all the others to zero (Krishnamoorthi 2018, section 3.1).
Per group goes on: each run of `group_size` neighbours along an axis has its own, which few bits need.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import ConfigError

Array = NDArray[Any]
Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


def integer_range(bits: int, signed: bool) -> tuple[int, int]:
    """The smallest and largest whole number of so many bits: (−128, 127) or (0, 255) for 8.

    Raises ConfigError unless bits is in 2..8.
    """
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ConfigError(f"bits={bits!r} must be a whole number 2..8")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def choose_scale(
    low: ArrayLike, high: ArrayLike, bits: int = 8, symmetric: bool = False, signed: bool = False
) -> tuple[Floats, Integers]:
    """The finest grid that covers [low, high] and holds 0: (scale, zero_point).

    low, high: [] for one grid per tensor, [C] for one per channel; finite, low ≤ high. Returns two arrays of
    that shape. A range of nothing but 0 gets scale 1: any would do.
    Raises ConfigError for bits outside 2..8 or a range that is not finite.
    """
    smallest, largest = integer_range(bits, signed)
    low, high = np.minimum(np.asarray(low, np.float64), 0), np.maximum(np.asarray(high, np.float64), 0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(f"a range must be finite, got low={low.min()}, high={high.max()}")
    middle = (smallest + largest + 1) // 2
    reach = np.maximum(-low, high) if symmetric else high - low
    scale = np.asarray(reach / (largest - middle if symmetric else largest - smallest))
    scale = np.where(scale > 0, np.maximum(scale, np.finfo(np.float32).tiny), 1)
    zero_point = np.full(scale.shape, middle) if symmetric else np.rint(smallest - low / scale)
    return scale.astype(np.float32), np.clip(zero_point, smallest, largest).astype(np.int32)


def quantize(
    x: Array,
    scale: ArrayLike,
    zero_point: ArrayLike,
    bits: int = 8,
    signed: bool = False,
    axis: int | None = None,
    group_size: int = 0,
) -> Array:
    """Floats to whole numbers: clamp(round(x / scale) + zero_point), ties to even, all in float32.

    x: [...] float32 without NaN (an infinity becomes the grid's end). scale, zero_point: [] or, with `axis`,
    [C] where C is x's size on that axis; with `group_size` too, of x's shape, but ⌈C / group_size⌉ on that axis.
    Returns x's shape in int8 (signed) or uint8: fewer bits use a part.
    """
    smallest, largest = integer_range(bits, signed)
    scale, zero_point = (_spread(each, x.shape, axis, group_size) for each in (scale, zero_point))
    with np.errstate(over="ignore"):
        q = np.rint(x / scale.astype(np.float32)) + zero_point.astype(np.float32)
    return np.asarray(np.clip(q, smallest, largest), dtype=np.int8 if signed else np.uint8)


def dequantize(
    q: Array, scale: ArrayLike, zero_point: ArrayLike, axis: int | None = None, group_size: int = 0
) -> Floats:
    """Whole numbers back to floats: scale · (q − zero_point). Shapes as in `quantize`; returns float32."""
    scale, zero_point = (_spread(each, q.shape, axis, group_size) for each in (scale, zero_point))
    difference = q.astype(np.int32) - zero_point.astype(np.int32)
    return np.asarray(difference.astype(np.float32) * scale.astype(np.float32), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Grid:
    """All that says which numbers a tensor may hold: scale and zero_point as in `quantize`, and what they are for.

    Every combination of bits, sign, symmetry and granularity (per tensor, per channel, per group) is one of these.
    """

    scale: Floats
    zero_point: Integers
    bits: int = 8
    signed: bool = False
    axis: int | None = None
    group_size: int = 0

    def quantize(self, x: Array) -> Array:
        """Floats to whole numbers, int8 or uint8."""
        return quantize(x, self.scale, self.zero_point, self.bits, self.signed, self.axis, self.group_size)

    def dequantize(self, q: Array) -> Floats:
        """Whole numbers back to floats."""
        return dequantize(q, self.scale, self.zero_point, self.axis, self.group_size)

    def round(self, x: Array) -> Floats:
        """What is left of x after quantization: the nearest numbers on the grid, in float32."""
        return self.dequantize(self.quantize(x))

    def spread(self, shape: tuple[int, ...]) -> Floats:
        """The scale of each number of a tensor of that shape."""
        return np.broadcast_to(_spread(self.scale, shape, self.axis, self.group_size), shape)

    def scaled(self, factor: Array) -> Grid:
        """The same grid with other steps; factor: a number for each number of the tensor, equal where they share."""
        if self.axis is None:
            each = factor.flat[0]
        elif self.group_size:
            each = np.take(factor, range(0, factor.shape[self.axis], self.group_size), self.axis)
        else:
            each = np.moveaxis(factor, self.axis, 0).reshape(factor.shape[self.axis], -1)[:, 0]
        return dataclasses.replace(self, scale=np.asarray(self.scale * each, np.float32))


def weight_grid(weight: Array, axis: int | None = None, bits: int = 8, group_size: int = 0) -> Grid:
    """The symmetric signed grid that covers a weight.

    One scale with axis None; one per slice along `axis`; with `group_size`, one per run of so many along `axis`, at
    each place of the other axes. Raises ConfigError for bits outside 2..8 or weights that are not finite.
    """
    if axis is None:
        low, high = weight.min(), weight.max()
    elif group_size:
        axis %= weight.ndim
        groups = _groups(weight, axis, group_size)
        low, high = groups.min(axis=axis + 1), groups.max(axis=axis + 1)
    else:
        others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
        low, high = weight.min(axis=others), weight.max(axis=others)
    scale, zero_point = choose_scale(low, high, bits, symmetric=True, signed=True)
    return Grid(scale, zero_point, bits, True, axis, group_size)


def quantize_bias(bias: Array, scale: ArrayLike) -> NDArray[np.int32]:
    """A bias [C] in int32 on the grid of the products it is added to: scale = input's scale · weight's scale.

    int32 accumulates w·x without a single rounding; the bias joins there, so it must use the same unit.
    """
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias / np.asarray(scale, np.float64)), limits.min, limits.max).astype(np.int32)


def _spread(values: ArrayLike, shape: tuple[int, ...], axis: int | None, group_size: int) -> Array:
    """Scales or zero points so that they meet the numbers they are for; a scalar stays one.

    [C] → [1, …, C, …, 1]; of groups, each value is repeated for all its members.
    """
    array = np.asarray(values)
    if axis is None or array.ndim == 0:
        return array
    if group_size:
        repeated = np.repeat(array, group_size, axis)
        return np.take(repeated, range(shape[axis]), axis)
    along = [1] * len(shape)
    along[axis] = array.size
    return array.reshape(along)


def _groups(x: Array, axis: int, group_size: int) -> Array:
    """Cut `axis` [C] in two, [groups, group_size]; a last group that is short is filled up with zeros."""
    count = math.ceil(x.shape[axis] / group_size)
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, count * group_size - x.shape[axis])
    return np.pad(x, missing).reshape(*x.shape[:axis], count, group_size, *x.shape[axis + 1 :])
