"""Fake quantization: rounding in the forward pass, a gradient in the backward pass, and a step size that learns.

A network that is to live on a grid should be trained on it. So the forward pass rounds as the finished model will,

    v = x / s,    q = clamp(round(v) + z, q_min, q_max),    x̂ = s · (q − z)

but stays in floats ("fake": nothing is an integer yet). The derivative of round is 0 almost everywhere, and
nothing would learn. The *straight-through estimator* takes the derivative of round to be 1 (Bengio et al. 2013):

    ∂x̂/∂x = 1 inside the range, 0 where x was clamped.

The step size s can be learned by the same rule (LSQ, Esser et al. 2020, equation 3). Write x̂ = s · round(x/s);
the product rule gives round(x/s), and s in the denominator gives −x/s:

    ∂x̂/∂s = round(v) − v   inside,       q_min − z   or   q_max − z   where clamped.

The first says how far x lies from its grid point: a step that makes many numbers sit badly is moved. The second
says that a larger step would let clamped numbers reach further. Between the two lies the best clipping.

One step gets gradients from all N numbers that it rounds, and would jump where a weight creeps. Scaled by
g = 1/√(N·Q_p), Q_p = the largest whole number, its updates are of the same relative size (section 2.2).
The start is s = 2·mean|x|/√Q_p, but never coarser than what the range needs. The zero point is a whole number
and stays as calibration chose it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.quantize.arithmetic.grid import Grid, choose_scale, integer_range
from labkit.variant import Array

_SMALLEST_SHARE = 0.01


class _Round(torch.autograd.Function):
    """x̂ from x and s, and the gradients above. scale must broadcast against x; z, q_min and q_max stay.

    This is most of what a step of training takes, so no array is gone through more often than needed: q − z and v
    are kept, and Σ gradient·(∂x̂/∂s) is a difference of two sums of products.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, g: float
    ) -> Tensor:
        lowest, highest = low - zero_point, high - zero_point
        v = x / scale
        whole = v.round().clamp_(lowest, highest)  # q − z: z is a whole number
        ctx.save_for_backward(v, whole, scale, lowest, highest)
        ctx.g = g
        return whole * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        v, whole, scale, lowest, highest = ctx.saved_tensors
        by_x = gradient * (v.clamp(lowest, highest) == v)
        by_scale = ctx.g * (_sum_of_products(gradient, whole, scale) - _sum_of_products(by_x, v, scale))
        return by_x, by_scale, None, None, None, None


def _sum_of_products(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Σ a·b over all that shares a scale: a, b [...] → the shape of `like`, which broadcasts against them."""
    if like.numel() == 1:
        return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(like.shape)
    return (a * b).sum_to_size(like.shape)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int = 8,
    signed: bool = False,
    axis: int | None = None,
    gradient_scale: float = 1.0,
) -> Tensor:
    """Round x to its grid and come back to floats, bit for bit as `dequantize(quantize(x))` does.

    x: [...]; scale (float32, > 0) and zero_point (whole numbers): [] or, with `axis`, [C] where C is x's size on
    that axis. Returns x's shape in float32. Gradients flow to x (straight through) and to scale (LSQ, times
    `gradient_scale`). Raises ConfigError if bits is not in 2..8.
    """
    low, high = integer_range(bits, signed)
    if axis is not None:
        along = [1] * x.ndim
        along[axis] = scale.numel()
        scale, zero_point = scale.reshape(along), zero_point.reshape(along)
    rounded: Tensor = _Round.apply(x.float(), scale, zero_point, low, high, gradient_scale)  # type: ignore[no-untyped-call]
    return rounded


def largest_level(zero_point: Array, bits: int, signed: bool) -> Array:
    """Q_p: how many steps the grid reaches to its longer side; a signed one's −2^(bits−1) is not counted."""
    low, high = integer_range(bits, signed)
    return np.asarray(np.maximum(high - zero_point, zero_point - low - 1))


class LearnedGrid(nn.Module):
    """A grid whose step size is a parameter: `scale` [] or, with `axis`, [C].

    Until `start` is called it lets everything through. `values_per_scale`, N above, is set then.
    """

    def __init__(self, bits: int, signed: bool, axis: int | None = None, channels: int = 1) -> None:
        super().__init__()
        shape = () if axis is None else (channels,)
        self.bits, self.signed, self.axis = bits, signed, axis
        self.started, self._g = False, 1.0
        self.scale = nn.Parameter(torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("smallest", torch.zeros(shape))

    def start(self, low: Array, high: Array, mean_size: Array, values_per_scale: int) -> None:
        """Choose the zero point for the range low..high, and the step size that learning begins with.

        low, high and mean_size, the mean of |x|: [] or [C].
        """
        widest, zero_point = choose_scale(low, high, self.bits, symmetric=self.signed, signed=self.signed)
        level = largest_level(zero_point, self.bits, self.signed)
        scale = 2 * np.asarray(mean_size) / np.sqrt(level)
        scale = np.where(scale > 0, np.minimum(scale, widest), widest).astype(np.float32)
        with torch.no_grad():
            self.scale.copy_(torch.from_numpy(np.asarray(scale)))
            self.get_buffer("zero_point").copy_(torch.from_numpy(np.asarray(zero_point)))
            self.get_buffer("smallest").copy_(_SMALLEST_SHARE * self.scale)
        self._g = 1 / math.sqrt(values_per_scale * float(level.max()))
        self.started = True

    def at_least(self, least: Tensor) -> None:
        """Make steps that are smaller than `least`, [] or [C], that large."""
        with torch.no_grad():
            self.scale.copy_(torch.maximum(self.scale, least))

    def keep_positive(self) -> None:
        """After a step of the optimizer: a scale of 0 or less would turn the grid over."""
        with torch.no_grad():
            self.scale.clamp_(min=self.get_buffer("smallest"))

    def forward(self, x: Tensor) -> Tensor:
        """X on the grid."""
        if not self.started:
            return x
        zero_point = self.get_buffer("zero_point")
        return fake_quantize(x, self.scale, zero_point, self.bits, self.signed, self.axis, self._g)

    def grid(self) -> Grid:
        """What was learned, as numbers."""
        zero_point: Array = self.get_buffer("zero_point").numpy()
        scale: Array = self.scale.detach().numpy()
        return Grid(scale.copy(), zero_point.copy(), self.bits, self.signed, self.axis)
