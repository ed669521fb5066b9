"""A network in whole numbers: products and sums in int32, and the way back to 8 bits.

A grid says x ≈ s·(q − z), with a scale s and a zero point z. So a product of two matrices becomes

    Y[m,n] = Σ_k A[m,k]·B[k,n]  ≈  s_a·s_b · Σ_k (a[m,k] − z_a)·(b[k,n] − z_b)

and the sum on the right holds no float. Multiplied out it is (Jacob et al. 2018, section 2.3)

    Σ_k a·b  −  z_a · Σ_k b  −  z_b · Σ_k a  +  K·z_a·z_b

The first term is what processors are fast at. The second depends on the weights alone and is made once; the third
is gone where the weights are symmetric, z_b = 0. A bias joins in the same unit (`quantize_bias`).

What is left is to bring the int32 sums to the 8 bits of the next layer: q_y = clamp(round(M·sum) + z_y), with one
real number M = s_x·s_w / s_y. `requantize` multiplies by M in float32, as ONNX Runtime does on a CPU.
`requantize_fixed_point` writes M as a whole number and a shift: nothing but integers, for chips without floats.

Equal to ONNX Runtime 1.32 in every integer: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, MatMulInteger,
ConvInteger, QLinearMatMul, QLinearConv. Two things depend on the processor. Without VNNI, its kernels for uint8 × int8
add products in pairs in int16, which clips at 32,767: 255·127 + 255·127 becomes 32,767 and not 64,770. Weights of 7
bits (−64..63) never reach that, and uint8 × uint8 and int8 × int8 have other kernels. And QLinearAdd has several
that round differently: see `integer_add`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from labkit.errors import ConfigError, TensorError
from labkit.quantize.arithmetic.grid import Array, Floats, Grid, Integers, integer_range, quantize


def integer_matmul(a: Array, b: Array, a_zero_point: ArrayLike = 0, b_zero_point: ArrayLike = 0) -> Integers:
    """Σ_k (a − a_zero_point)·(b − b_zero_point) by the four terms above: ONNX's MatMulInteger.

    a: [..., M, K], b: [..., K, N], int8 or uint8. a_zero_point: []; b_zero_point: [] or [N], one per column.
    Returns [..., M, N] in int32. A sum beyond int32 wraps around, as it does in a processor; with symmetric weights
    none can be for K ≤ 65,793.
    Raises TensorError for arrays that are not of 8 bits or do not fit each other.
    """
    a, b = _whole(a), _whole(b)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise TensorError(f"a product needs [M, K] and [K, N], got {list(a.shape)} and {list(b.shape)}")
    a_zero_point, b_zero_point = np.asarray(a_zero_point, np.int32), np.asarray(b_zero_point, np.int32)
    columns, rows = b.sum(-2, np.int32, keepdims=True), a.sum(-1, np.int32, keepdims=True)
    constant = np.int32(a.shape[-1]) * a_zero_point * b_zero_point
    return np.asarray(a @ b - a_zero_point * columns - b_zero_point * rows + constant, np.int32)


def integer_conv(
    x: Array,
    w: Array,
    x_zero_point: ArrayLike = 0,
    w_zero_point: ArrayLike = 0,
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
) -> Integers:
    """A convolution in whole numbers, as one product of matrices per group: ONNX's ConvInteger.

    x: [N, C, *space], w: [O, C/group, *kernel], int8 or uint8. x_zero_point: []; w_zero_point: [] or [O]. strides and
    dilations: one for each axis of space, 1 unless given; pads: all the beginnings, then all the ends, 0 unless given.
    What is padded is x_zero_point, the number that stands for 0. Returns [N, O, *positions] in int32.
    Raises TensorError for arrays that are not of 8 bits or do not fit each other.
    """
    n, channels, outputs = x.shape[0], x.shape[1], w.shape[0]
    if x.ndim != w.ndim or channels != w.shape[1] * group or outputs % group:
        raise TensorError(f"input {list(x.shape)} and weight {list(w.shape)} do not fit in {group} groups")
    seen = windows(x, w.shape[2:], strides, pads, dilations, x_zero_point)
    positions = seen.shape[2 : x.ndim]
    shape = (n, group, channels // group, math.prod(positions), math.prod(w.shape[2:]))
    columns = seen.reshape(shape).swapaxes(2, 3).reshape(n, group, shape[3], -1)  # [N, group, positions, K]
    rows = w.reshape(group, outputs // group, -1).swapaxes(1, 2)  # [group, K, O/group]
    zero = np.asarray(w_zero_point)
    sums = integer_matmul(columns, rows, x_zero_point, zero.reshape(group, 1, -1) if zero.size > 1 else zero)
    return sums.swapaxes(2, 3).reshape(n, outputs, *positions)


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    fill: ArrayLike = 0,
) -> Array:
    """What a kernel sees at each of its positions: [N, C, *space] → [N, C, *positions, *kernel].

    strides, pads and dilations as in `integer_conv`; the padding is made of `fill`.
    Raises TensorError for a kernel that does not fit into the padded input.
    """
    rank = x.ndim - 2
    strides, dilations, pads = strides or (1,) * rank, dilations or (1,) * rank, pads or (0,) * 2 * rank
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=fill)
    reach = [1 + dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
    if any(needed > size for needed, size in zip(reach, padded.shape[2:], strict=True)):
        raise TensorError(f"a kernel that reaches over {reach} does not fit into {list(padded.shape[2:])}")
    every = sliding_window_view(padded, reach, tuple(range(2, x.ndim)))
    steps = (slice(None, None, step) for step in (1, 1, *strides, *dilations))
    return np.asarray(every[tuple(steps)])


def product_scale(x_scale: ArrayLike, w_scale: ArrayLike, y_scale: ArrayLike = 1.0) -> Floats:
    """M = s_x·s_w / s_y in float32, in the runtime's order: another order differs in the last bit.

    Without y_scale it is the unit of the sums: sum · s_x·s_w is the float that they stand for.
    """
    x_scale, w_scale, y_scale = (np.asarray(each, np.float32) for each in (x_scale, w_scale, y_scale))
    return np.asarray(x_scale * w_scale / y_scale, np.float32)


def requantize(sums: Array, scale: ArrayLike, zero_point: ArrayLike, signed: bool = False) -> Array:
    """clamp(round(sums · scale) + zero_point): the last step of QLinearMatMul and QLinearConv.

    sums: int32 [...]; scale: `product_scale`, > 0, of a shape that meets sums': [], or [O, 1, 1] for the channels
    of a convolution. The product is one of float32 (sums beyond 2^24 are rounded first), and ties go to the even
    number *before* the zero point is added. Returns sums' shape in int8 (signed) or uint8.
    Raises ConfigError for a scale that is not positive and finite.
    """
    smallest, largest = integer_range(8, signed)
    scale, zero_point = _positive(scale).astype(np.float32), np.asarray(zero_point, np.int32)
    with np.errstate(over="ignore"):
        rounded = np.rint(sums.astype(np.float32) * scale)
    whole = np.clip(rounded, smallest - zero_point, largest - zero_point).astype(np.int32)
    return np.asarray(whole + zero_point, np.int8 if signed else np.uint8)


def fixed_point(scale: ArrayLike) -> tuple[Integers, Integers]:
    """A positive real number as multiplier · 2^(−31 − shift), multiplier a whole number in [2^30, 2^31).

    scale: [...], as given by `product_scale`, below 2^30. Returns (multiplier, shift), int32 of its shape. This is done
    once, before the network runs: a float32 has 24 bits, so nothing is lost. A scale below 2^−32 makes 0 of every sum,
    and gets the multiplier 0.
    Raises ConfigError for a scale that is not positive, or too large.
    """
    fraction, exponent = np.frexp(_positive(scale).astype(np.float64))
    if (exponent > 30).any():
        raise ConfigError(f"scale={np.max(scale):.3g} must be below 2^30: the output's grid is far too fine")
    multiplier = np.minimum(np.rint(fraction * 2**31), 2**31 - 1)
    nothing = exponent < -31
    return np.where(nothing, 0, multiplier).astype(np.int32), np.where(nothing, 0, -exponent).astype(np.int32)


def requantize_fixed_point(
    sums: Array,
    multiplier: ArrayLike,
    shift: ArrayLike,
    zero_point: ArrayLike,
    signed: bool = False,
    twice: bool = False,
) -> Array:
    """`requantize` without floats: (sums · multiplier) / 2^(31 + shift), a product of 64 bits and a shift that rounds.

    sums: int32 [...]; multiplier, shift: `fixed_point`, of a shape that meets sums'. Returns int8 or uint8.
    Rounded once, ties up, it differs from `requantize` (by one) only at a tie, or so close to one that float32 cannot
    tell. `twice` is gemmlowp's way (Jacob et al. 2018, section 2.2), for processors that give only the upper half of a
    product: a shift by 31, ties up, then one by `shift`, ties away from zero. A first rounding can make a tie for
    the second: 1 · 0.25 becomes ½, then 1.
    """
    smallest, largest = integer_range(8, signed)
    shift = np.asarray(shift, np.int64)
    first = 31 + (np.minimum(shift, 0) if twice else shift)
    whole = (sums.astype(np.int64) * np.asarray(multiplier, np.int64) + (1 << first - 1)) >> first
    if twice:
        whole = _shift_right(whole, np.maximum(shift, 0))
    whole = whole + np.asarray(zero_point, np.int64)
    return np.asarray(np.clip(whole, smallest, largest), np.int8 if signed else np.uint8)


def integer_add(a: Array, a_grid: Grid, b: Array, b_grid: Grid, y_grid: Grid) -> Array:
    """The sum of two quantized tensors on a third grid, each grid per tensor: QLinearAdd of com.microsoft.

    q_y = clamp(round(a·(s_a/s_y) + (b·(s_b/s_y) + c))), c = z_y − (z_a·s_a/s_y + z_b·s_b/s_y), in float32 with fused
    multiply-adds: each ends in one rounding, not two. So do ONNX Runtime's kernels for x86 with FMA, and every integer
    is equal there. Without FMA they round after each product; on ARM they use whole numbers and send ties away from
    zero. Either may differ by one in rare places: no formula is bit-exact everywhere.
    """
    smallest, largest = integer_range(8, y_grid.signed)
    a_ratio, b_ratio = (np.float32(grid.scale) / np.float32(y_grid.scale) for grid in (a_grid, b_grid))
    a_zero, b_zero, y_zero = (np.float32(grid.zero_point) for grid in (a_grid, b_grid, y_grid))
    constant = y_zero - _fused(a_ratio, a_zero, b_ratio * b_zero)
    total = _fused(a_ratio, _whole(a), _fused(b_ratio, _whole(b), constant))
    return np.asarray(np.clip(np.rint(total), smallest, largest), np.int8 if y_grid.signed else np.uint8)


def dynamic_quantize(x: Array) -> tuple[Array, Grid]:
    """Put x on a uint8 grid that it chooses itself, as it comes: ONNX's DynamicQuantizeLinear.

    x: [...] finite float32. Returns (q of x's shape in uint8, its grid). The same grid as `choose_scale`, but reckoned
    in float32, since it has to be done again for every input.
    """
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255) if high > low else np.float32(1)
    zero_point = np.rint(np.clip(-low / scale, 0, 255))
    grid = Grid(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32))
    return quantize(x, grid.scale, grid.zero_point), grid


def _shift_right(x: Array, shift: Array) -> Array:
    """Divide by 2^shift to the nearest whole number, ties away from zero (gemmlowp's RoundingDivideByPOT)."""
    rest = x & ((1 << shift) - 1)
    half = ((1 << shift) - 1 >> 1) + (x < 0)
    return np.asarray((x >> shift) + (rest > half))


def _fused(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Floats:
    """a·b + c in float32 with one rounding: float64 holds the product exactly."""
    a, b, c = (np.asarray(each, np.float64) for each in (a, b, c))
    return np.asarray(a * b + c, np.float32)


def _whole(q: Array) -> Integers:
    """8-bit numbers in int32, for arithmetic. Raises TensorError for anything else."""
    if q.dtype not in (np.int8, np.uint8):
        raise TensorError(
            f"whole numbers of 8 bits are needed, int8 or uint8, got {q.dtype}: quantize it first"
        )
    return q.astype(np.int32)


def _positive(scale: ArrayLike) -> Array:
    array = np.asarray(scale)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ConfigError(f"scale={array.min():.3g} must be a finite number above 0")
    return array
