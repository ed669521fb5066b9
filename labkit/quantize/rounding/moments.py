"""What a layer sees, in a few matrices: enough to say what any rounding of its weights would cost.

A convolution or matrix product is a linear map of patches, y = W·x + b. With other weights Ŵ, and on the inputs x̂
that the quantized layers before it deliver, the squared error of its output is

    E‖W·x + b − Ŵ·x̂ − b̂‖² = tr[(Ŵ − W*) H (Ŵ − W*)ᵀ] + what no Ŵ can change

    H = cov(x̂, x̂),   W* = W · cov(x, x̂) · H⁻¹,   b̂ = b + W·E[x] − Ŵ·E[x̂]

H is the *metric*: it says in which directions of weight space an error is seen at the output, and in which it is
not. W* is the *target*: the float weights that best undo the errors made so far. Both are means, so samples are
added batch by batch and the memory needed does not grow with their number (Nagel et al. 2020, equation 9, for the
metric; b̂ is the bias correction of Nagel et al. 2019, section 4.2).
"""

from __future__ import annotations

import functools
import math

import numpy as np

from labkit.onnx_graph import Graph, attribute, window
from labkit.quantize.arithmetic.integer import windows
from labkit.quantize.graph.plan import Layer
from labkit.variant import Array

_DAMPING = 1e-2
_MOST_PATCHES = 100_000
_MOST_PATCH_BYTES = 256 * 2**20


class Rows:
    """A layer's weight as the matrices that it is: [groups, outputs, inputs], whatever its operator's layout.

    A Conv [O, I/groups, kh, kw] has one matrix for each group, of I/groups·kh·kw inputs; a depthwise one has as many
    as channels. A Gemm or MatMul has one.
    """

    def __init__(self, graph: Graph, layer: Layer) -> None:
        self.node = next(node for node in graph.nodes if layer.output in node.output)
        self.layer = layer
        self.groups = attribute(self.node, "group", 1) if layer.op_type == "Conv" else 1
        shape = graph.constants[layer.weight].dims
        self.shape = tuple(shape) if layer.axis == 0 else tuple(reversed(shape))

    @property
    def inputs(self) -> int:
        """How many numbers each output is a sum over."""
        return math.prod(self.shape[1:])

    @property
    def products(self) -> int:
        """How many numbers say what the inputs have in common: inputs² in each group."""
        return self.groups * self.inputs**2

    def matrices(self, weight: Array) -> Array:
        """Weight, or anything of its shape → [groups, outputs, inputs]."""
        rows = weight if self.layer.axis == 0 else weight.T
        return rows.reshape(self.groups, self.shape[0] // self.groups, -1)

    def weight(self, matrices: Array) -> Array:
        """The way back."""
        rows = matrices.reshape(self.shape)
        return rows if self.layer.axis == 0 else np.ascontiguousarray(rows.T)

    def patches(self, x: Array) -> Array:
        """The layer's input → the vectors that its matrices are multiplied with, [groups, patches, inputs].

        Neighbouring patches overlap and say nearly the same: where there are more than 100,000 for each group, or more
        than 256 MB in all, every second is taken, or every third, and so on.
        """
        at_most = max(1, min(_MOST_PATCHES, _MOST_PATCH_BYTES // (8 * self.groups * self.inputs)))
        if self.layer.op_type != "Conv":
            rows = x.reshape(1, -1, x.shape[-1])
            return rows[:, :: _every(rows.shape[1], at_most)].astype(np.float64)
        dims, kernel = x.ndim - 2, self.shape[2:]
        strides, dilations, pads = window(functools.partial(attribute, self.node), x.shape[2:], kernel)
        seen = windows(x, kernel, strides, pads, dilations)  # a view: [N, C, *places, *kernel]
        seen = np.moveaxis(seen, 1, 1 + dims)
        places = seen.shape[: 1 + dims]
        count = math.prod(places)
        taken = np.unravel_index(np.arange(0, count, _every(count, at_most)), places)
        rows = seen[taken].reshape(len(taken[0]), self.groups, -1)
        return rows.swapaxes(0, 1).astype(np.float64)


def _every(count: int, at_most: int) -> int:
    """The smallest n for which every n-th of `count` are `at_most`."""
    return -(-count // at_most)


class Moments:
    """Means of a layer's inputs, float and quantized side by side, and of their products.

    `is_centred` if the layer has a bias, which then takes care of the means. To correct the bias alone the means
    suffice: `only_means` saves the products, inputs² numbers.
    """

    def __init__(self, is_centred: bool, only_means: bool = False) -> None:
        self.is_centred, self.only_means = is_centred, only_means
        self.count = 0
        self.sums: list[Array] = []

    def add(self, x: Array, quantized: Array) -> None:
        """One batch of patches, [groups, patches, inputs] each."""
        products = [] if self.only_means else [np.swapaxes(each, 1, 2) @ quantized for each in (quantized, x)]
        batch = [quantized.sum(axis=1), x.sum(axis=1), *products]
        for total, part in zip(self.sums, batch, strict=False):  # in place: they may be large
            total += part
        self.sums = self.sums or batch
        self.count += x.shape[1]

    def metric_and_target(self, weight: Array) -> tuple[Array, Array]:
        """H [groups, inputs, inputs] and W* [groups, outputs, inputs] for the weight's matrices.

        A little is added to H's diagonal, 1 % of its mean: directions that no sample has are left as they are.
        """
        mean, float_mean, own, cross = (each / self.count for each in self.sums)
        if self.is_centred:
            own = own - mean[:, :, None] * mean[:, None, :]
            cross = cross - float_mean[:, :, None] * mean[:, None, :]
        size = own.shape[-1]
        level = np.trace(own, axis1=1, axis2=2) / size
        metric = own + (_DAMPING * level + 1e-12)[:, None, None] * np.eye(size)
        shift = np.swapaxes(np.linalg.solve(metric, np.swapaxes(weight @ (cross - own), 1, 2)), 1, 2)
        return metric, weight + shift

    def bias_shift(self, weight: Array, rounded: Array) -> Array:
        """W·E[x] − Ŵ·E[x̂]: what to add to the bias, [outputs]."""
        mean, float_mean = (each / self.count for each in self.sums[:2])
        shift = weight @ float_mean[:, :, None] - rounded @ mean[:, :, None]
        return shift.reshape(-1)


def error(metric: Array, target: Array, rounded: Array) -> float:
    """tr[(Ŵ − W*) H (Ŵ − W*)ᵀ]: the mean squared error of the layer's output, summed over its outputs."""
    difference = rounded - target
    return float(np.sum((difference @ metric) * difference))
