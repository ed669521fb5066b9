"""A whole quantized network in whole numbers: the arithmetic of `integer`, node by node through a QDQ file.

A DequantizeLinear says what integers mean, and nothing has to be computed for it. So a tensor here is `Whole`: integers
with their scale and zero point, never the floats they stand for. A convolution turns two of them into int32 sums whose
scale is the product of both; a ReLU of sums is max(sum, 0); a QuantizeLinear brings sums to the next grid of 8 bits.
The input is rounded once and the output turned into floats once: in between there is no float but the one factor
M of `requantize`, and with without_floats=True not even that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from labkit.doors import door
from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, Window, attribute, open_graph, window
from labkit.quantize.arithmetic.grid import Array, Grid, dequantize, quantize
from labkit.quantize.arithmetic.integer import (
    fixed_point,
    integer_add,
    integer_conv,
    integer_matmul,
    product_scale,
    requantize,
    requantize_fixed_point,
    windows,
)
from labkit.variant import Variant

_ADD_BITS = 20


@dataclass(frozen=True, eq=False)
class Whole:
    """Integers and what they mean: scale · (values − zero_point).

    values: [...] int8, uint8 or int32 (sums: zero_point 0). scale, zero_point: [], or [C] for the channels on `axis`.
    """

    values: Array
    scale: Array
    zero_point: Array
    axis: int = 1

    def sums(self) -> Array:
        """Values − zero_point in int32."""
        return np.asarray(self.values.astype(np.int32) - self.along(self.zero_point), np.int32)

    def relu(self) -> Whole:
        """Nothing below the number that stands for 0."""
        return replace(self, values=np.maximum(self.values, self.along(self.zero_point)))

    def on_grid(self, scale: Array, zero_point: Array, without_floats: bool) -> Whole:
        """The same numbers on a grid of 8 bits, zero_point int8 or uint8."""
        factor, signed = self.along(product_scale(self.scale, 1.0, scale)), zero_point.dtype == np.int8
        if without_floats:
            q = requantize_fixed_point(self.sums(), *fixed_point(factor), zero_point, signed)
        else:
            q = requantize(self.sums(), factor, zero_point, signed)
        return Whole(q, scale, zero_point)

    def along(self, values: Array) -> Array:
        """[C] → [C, 1, …], so that it meets `axis`."""
        return values.reshape(-1, *[1] * (self.values.ndim - 1 - self.axis)) if values.ndim else values


@dataclass(frozen=True, eq=False)
class Sum:
    """a + b, both of 8 bits, not added yet: the runtime does so on the way to the next grid."""

    a: Whole
    b: Whole
    positive: bool = False

    def relu(self) -> Sum:
        """Nothing below 0."""
        return replace(self, positive=True)

    def on_grid(self, scale: Array, zero_point: Array, without_floats: bool) -> Whole:
        """The sum on a grid of 8 bits, by way of a much finer one where floats are not allowed."""
        if without_floats:
            unit = np.float32(max(self.a.scale, self.b.scale) / 2**_ADD_BITS)
            a, b = (each.sums() * np.rint(each.scale / unit).astype(np.int32) for each in (self.a, self.b))
            total = Whole(a + b, np.asarray(unit), np.array(0, np.int32)).on_grid(scale, zero_point, True)
        else:
            grids = [_grid(each.scale, each.zero_point) for each in (self.a, self.b)]
            q = integer_add(self.a.values, grids[0], self.b.values, grids[1], _grid(scale, zero_point))
            total = Whole(q, scale, zero_point)
        return total.relu() if self.positive else total


@door
def run_integer_only(
    variant: Variant, feeds: Mapping[str, Any], without_floats: bool = False
) -> dict[str, Array]:
    """Run a quantized ONNX variant, as QuantizeInt8 makes it, in numpy with integers alone.

    feeds: the model's inputs, as `variant.feeds` makes them. without_floats: fixed point between the layers.
    Returns every tensor that was computed, name → int8, uint8, or int32 for sums, and the model's outputs in float32.
    What ONNX Runtime has as integers too is equal in every one, unless `without_floats`; see `integer` for exceptions.
    Raises TechniqueError for a model that is not quantized, or that has a node without integer arithmetic here;
    TensorError for feeds that do not fit.
    """
    if variant.format != "onnx" or not variant.quantized:
        name = variant.name
        raise TechniqueError(f"{name!r} is not quantized ONNX: apply labkit.QuantizeInt8() to it first")
    variant.check_feeds(feeds)
    graph = Graph(open_graph(variant.payload))
    known: dict[str, Any] = {name: graph.constant(name) for name in graph.constants} | dict(feeds)
    computed: dict[str, Array] = {}
    for node in graph.nodes:
        inputs = [known[name] if name else None for name in node.input]
        name = node.output[0]
        if node.op_type == "QuantizeLinear":
            known[name] = _quantize(node, inputs, without_floats)
        elif node.op_type == "DequantizeLinear":
            known[name] = _meaning(node, inputs)
        elif node.op_type in _OPERATORS:
            fit = Whole | Sum if node.op_type == "Relu" else Whole
            _need(isinstance(inputs[0], fit), node, "its input is in floats")
            known[name] = _OPERATORS[node.op_type](node, *inputs)
        else:
            _need(False, node, f"this is there for {', '.join(_OPERATORS)} only")
        if isinstance(known[name], Whole) and node.op_type != "DequantizeLinear":
            computed[name] = known[name].values
    for name in graph.outputs:
        result = known[name]
        if not isinstance(result, Whole):
            raise TechniqueError(f"the output {name!r} of {variant.name!r} is not made of whole numbers")
        axis = result.axis if result.scale.ndim else None
        computed[name] = dequantize(result.sums(), result.scale, 0, axis)
    return computed


def _quantize(node: onnx.NodeProto, inputs: list[Any], without_floats: bool) -> Whole:
    """QuantizeLinear: of floats (the model's input), or of integers on another grid."""
    x, scale, zero_point = _parameters(node, inputs, np.uint8)
    eight_bits = zero_point.dtype in (np.int8, np.uint8)
    _need(scale.ndim == 0 and eight_bits, node, "it makes more than one grid, or none of 8 bits")
    if isinstance(x, Whole | Sum):
        return x.on_grid(scale, zero_point, without_floats)
    return Whole(quantize(x, scale, zero_point, signed=zero_point.dtype == np.int8), scale, zero_point)


def _meaning(node: onnx.NodeProto, inputs: list[Any]) -> Whole:
    """DequantizeLinear: nothing is computed, but from here on it is known what the integers mean."""
    values = inputs[0].values if isinstance(inputs[0], Whole) else inputs[0]
    _, scale, zero_point = _parameters(node, inputs, values.dtype)
    _need(values.dtype in (np.int8, np.uint8, np.int32), node, f"it holds {values.dtype}")
    return Whole(values, scale, zero_point, attribute(node, "axis", 1))


def _parameters(node: onnx.NodeProto, inputs: list[Any], dtype: Any) -> tuple[Any, Array, Array]:
    """What is (de)quantized, its scale and its zero point, [] where there is one for all.

    A zero point that is left out is 0, in the `dtype` that the integers then have.
    """
    x, scale, zero_point = [*inputs, None][:3]
    zero_point = np.zeros(scale.shape, dtype) if zero_point is None else zero_point
    scale, zero_point = (each.reshape(()) if each.size == 1 else each for each in (scale, zero_point))
    _need(scale.ndim < 2 and scale.dtype == np.float32, node, "its scales are of groups, or not in float32")
    return x, scale, zero_point


def _conv(node: onnx.NodeProto, x: Whole, w: Whole, bias: Whole | None = None) -> Whole:
    _check_weight(node, w, 0)
    strides, dilations, pads = _window(node, x, w.values.shape[2:])
    group = attribute(node, "group", 1)
    sums = integer_conv(x.values, w.values, x.zero_point, w.zero_point, strides, pads, dilations, group)
    return _with_bias(node, sums, x, w, bias)


def _gemm(node: onnx.NodeProto, x: Whole, w: Whole, bias: Whole | None = None) -> Whole:
    plain = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0))
    _need(plain == (1, 1, 0), node, "it scales or transposes its input")
    transposed = attribute(node, "transB", 0)
    _check_weight(node, w, 1 - transposed)
    sums = integer_matmul(x.values, w.values.T if transposed else w.values, x.zero_point, w.zero_point)
    return _with_bias(node, sums, x, w, bias)


def _check_weight(node: onnx.NodeProto, w: Any, axis: int) -> None:
    """Raise TechniqueError for a weight in floats, or with scales along another axis than that of the outputs."""
    _need(isinstance(w, Whole), node, "its weight is in floats")
    _need(w.scale.ndim == 0 or w.axis == axis, node, "its weight's scales are not those of its outputs")


def _with_bias(node: onnx.NodeProto, sums: Array, x: Whole, w: Whole, bias: Whole | None) -> Whole:
    """Sums [N, O, …] and a bias [O] in their unit, the product of the scales."""
    unit = product_scale(x.scale, w.scale)
    total = Whole(sums, unit, np.array(0, np.int32))
    if bias is None:
        return total
    same_unit = isinstance(bias, Whole) and np.array_equal(bias.scale, unit)
    _need(same_unit, node, "its bias is in another unit than its products")
    return replace(total, values=sums + bias.values.reshape(-1, *[1] * (sums.ndim - 2)))


def _clip(node: onnx.NodeProto, x: Whole, low: Array | None = None, high: Array | None = None) -> Whole:
    """The bounds are written in x's unit, to the nearest whole number."""
    limits = np.iinfo(np.int32)
    unit = x.along(x.scale).astype(np.float64)
    bounds = [limits.min if low is None else low / unit, limits.max if high is None else high / unit]
    least, most = (np.clip(np.rint(bound), limits.min, limits.max).astype(np.int32) for bound in bounds)
    return replace(x, values=np.clip(x.sums(), least, most), zero_point=np.array(0, np.int32))


def _max_pool(node: onnx.NodeProto, x: Whole) -> Whole:
    _need(not attribute(node, "ceil_mode", 0), node, "it rounds its size up")
    kernel = attribute(node, "kernel_shape", ())
    strides, dilations, pads = _window(node, x, kernel)
    seen = windows(x.values, kernel, strides, pads, dilations, fill=np.iinfo(x.values.dtype).min)
    return replace(x, values=seen.max(axis=tuple(range(x.values.ndim, seen.ndim))))


def _mean(node: onnx.NodeProto, x: Whole, axes: Array | None = None) -> Whole:
    """The sum, in a unit that is smaller by the number of summands."""
    space = tuple(range(2, x.values.ndim))
    given = attribute(node, "axes", space) if axes is None else axes.tolist()
    _need(sorted(axis % x.values.ndim for axis in given) == list(space), node, "it is not over all of space")
    sums = x.sums().sum(space, np.int32, keepdims=bool(attribute(node, "keepdims", 1)))
    count = math.prod(x.values.shape[2:])
    return Whole(sums, np.asarray(x.scale / np.float32(count), np.float32), np.array(0, np.int32))


def _reshape(node: onnx.NodeProto, x: Whole, shape: Array | None = None) -> Whole:
    _need(x.scale.ndim == 0, node, "its input has a scale per channel")
    if shape is None:  # Flatten
        at = attribute(node, "axis", 1)
        return replace(x, values=x.values.reshape(math.prod(x.values.shape[:at]), -1))
    keep = not attribute(node, "allowzero", 0)
    sizes = [x.values.shape[i] if keep and size == 0 else size for i, size in enumerate(shape.tolist())]
    return replace(x, values=x.values.reshape(sizes))


def _add(node: onnx.NodeProto, a: Whole, b: Whole) -> Sum:
    eight = all(isinstance(each, Whole) and each.values.dtype.itemsize == 1 for each in (a, b))
    _need(
        eight and a.values.shape == b.values.shape,
        node,
        "it does not add two tensors of 8 bits and one shape",
    )
    return Sum(a, b)


_OPERATORS: dict[str, Callable[..., Whole | Sum]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _gemm,
    "Relu": lambda node, x: x.relu(),
    "Clip": _clip,
    "MaxPool": _max_pool,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Add": _add,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
}


def _window(node: onnx.NodeProto, x: Whole, kernel: Sequence[int]) -> Window:
    return window(functools.partial(attribute, node), x.values.shape[2:], kernel)


def _grid(scale: Array, zero_point: Array) -> Grid:
    return Grid(scale, zero_point, signed=zero_point.dtype == np.int8)


def _need(condition: bool, node: onnx.NodeProto, reason: str) -> None:
    """Raise TechniqueError, naming the node and the reason, unless `condition`."""
    if not condition:
        raise TechniqueError(
            f"{node.op_type} {node.name or node.output[0]!r} cannot be run in whole numbers: {reason}"
        )
