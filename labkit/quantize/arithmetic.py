"""The arithmetic of quantization: floats to whole numbers on an even grid, and back.

    q = clamp(round(x / scale) + zero_point)        x ≈ scale · (q − zero_point)

`scale` is the distance between two neighbours on the grid, `zero_point` the whole number that stands for
exactly 0: zero is what padding and ReLU produce, so it must not be off by half a step. Rounding is half to
even, as ONNX's QuantizeLinear has it, and every bit agrees with ONNX Runtime's.

*Symmetric* puts zero_point in the middle: the product of two numbers then needs no correction, which is what
weights want. *Asymmetric* spends the grid on [low, high] as they are: after a ReLU nothing is negative, and a
symmetric grid would waste half of itself. Per channel, each output channel of a weight has its own scale:
one channel with large weights then cannot flatten all the others to zero (Krishnamoorthi 2018, section 3.1).
"""

from __future__ import annotations

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
) -> Array:
    """Floats to whole numbers: clamp(round(x / scale) + zero_point), ties to even, all in float32.

    x: [...] float32 without NaN (an infinity becomes the grid's end). scale, zero_point: [] or, with `axis`,
    [C] where C is x's size on that axis. Returns x's shape in int8 (signed) or uint8: fewer bits use a part.
    """
    smallest, largest = integer_range(bits, signed)
    scale, zero_point = _along(scale, x.ndim, axis), _along(zero_point, x.ndim, axis)
    with np.errstate(over="ignore"):
        q = np.rint(x / scale.astype(np.float32)) + zero_point.astype(np.float32)
    return np.asarray(np.clip(q, smallest, largest), dtype=np.int8 if signed else np.uint8)


def dequantize(q: Array, scale: ArrayLike, zero_point: ArrayLike, axis: int | None = None) -> Floats:
    """Whole numbers back to floats: scale · (q − zero_point). Shapes as in `quantize`; returns float32."""
    scale, zero_point = _along(scale, q.ndim, axis), _along(zero_point, q.ndim, axis)
    difference = q.astype(np.int32) - zero_point.astype(np.int32)
    return np.asarray(difference.astype(np.float32) * scale.astype(np.float32), dtype=np.float32)


def weight_scale(weight: Array, axis: int | None) -> tuple[Floats, Integers]:
    """Symmetric signed scales for a weight: [] with axis None, else one per slice along `axis`, [C]."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    return choose_scale(weight.min(axis=others), weight.max(axis=others), symmetric=True, signed=True)


def quantize_bias(bias: Array, scale: ArrayLike) -> NDArray[np.int32]:
    """A bias [C] in int32 on the grid of the products it is added to: scale = input's scale · weight's scale.

    int32 accumulates w·x without a single rounding; the bias joins there, so it must use the same unit.
    """
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias / np.asarray(scale, np.float64)), limits.min, limits.max).astype(np.int32)


def _along(values: ArrayLike, rank: int, axis: int | None) -> Array:
    """[C] → [1, …, C, …, 1], so that it meets `axis`; a scalar stays one."""
    array = np.asarray(values)
    if axis is None or array.ndim == 0:
        return array
    shape = [1] * rank
    shape[axis] = array.size
    return array.reshape(shape)
