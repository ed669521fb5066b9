"""Counting what a model holds and what it must do: parameters, and multiply-adds per sample.

A convolution multiplies once for every number it puts out and every weight that reaches that number; a matrix
product [m, k] · [k, n] does m·k·n. Everything else (activations, additions, normalisation) is small beside
these and left out, as the papers do. A zero weight is multiplied like any other: zeros shrink
`nonzero_parameters`, not `macs`.

A batch normalisation that an exporter folded into the convolution before it is gone from the ONNX file: its
two parameters per channel became one bias, and by that the counts before and after export differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.measure.records import Reason
from labkit.variant import Array, Variant


@dataclass(frozen=True)
class Counts:
    """What was counted; `macs` are of one sample."""

    macs: int | Reason
    parameters: int
    nonzero_parameters: int


def count(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    """Count `variant` on `feeds`, one sample or as many as it insists on: PyTorch runs it, ONNX needs the shapes."""
    counts = _count_onnx(variant, feeds) if variant.format == "onnx" else _count_torch(variant, feeds)
    samples = variant.fixed_batch or 1
    if isinstance(counts.macs, Reason):
        return counts
    return dataclasses.replace(counts, macs=counts.macs // samples)


def _count_torch(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    """PyTorch's own counter calls a product two operations; it sees those of attention in its plain form only."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    module = variant.model
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(*(torch.from_numpy(feeds[spec.name]) for spec in variant.inputs))
    finally:
        for each, training in modes:
            each.training = training
    parameters = list(module.parameters())
    return Counts(
        counter.get_total_flops() // 2,
        sum(parameter.numel() for parameter in parameters),
        sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
    )


_CONSTANT_INPUTS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "BatchNormalization": (3, 4),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
}
"""Operator → its inputs that hold scales, zero points, running statistics: measured, not learnt."""

_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operator → which input holds the weight [outputs, inputs per group, …kernel]."""

_INTEGER_WEIGHTS = {
    "DequantizeLinear": 0,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Operator → the input that may be a weight stored as integers."""

_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm")
_UNCOUNTED = (
    "ConvTranspose",
    "DeformConv",
    "LSTM",
    "GRU",
    "RNN",
    "Einsum",
    "Attention",
    "Loop",
    "If",
    "Scan",
)


def _count_onnx(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    import onnx

    model = onnx.load_model_from_string(variant.payload)
    return Counts(_onnx_macs(model, feeds), *_onnx_parameters(model.graph))


def _onnx_parameters(graph: Any) -> tuple[int, int]:
    """How many numbers the learnt tensors hold, and how many of them are not zero (not at the zero point).

    A tensor is learnt if it is an initializer of real numbers, or of the integers that stand for a weight;
    single numbers, shapes and indices are not.
    """
    from onnx import TensorProto
    from onnx.numpy_helper import to_array

    real = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    initializers = {each.name: each for each in graph.initializer}
    constants: set[str] = set()
    learnt = {name for name, each in initializers.items() if each.data_type in real}
    zero_points: dict[str, Array] = {}
    for node in graph.node:
        constants.update(
            node.input[slot] for slot in _CONSTANT_INPUTS.get(node.op_type, ()) if slot < len(node.input)
        )
        slot = _INTEGER_WEIGHTS.get(node.op_type)
        if slot is not None and node.input[slot] in initializers:
            learnt.add(node.input[slot])
            if node.op_type == "DequantizeLinear" and len(node.input) > 2 and node.input[2] in initializers:
                shape = tuple(initializers[node.input[0]].dims)
                zero_points[node.input[0]] = _spread(
                    to_array(initializers[node.input[2]]), shape, _attributes(node)
                )
    total = nonzero = 0
    for name in learnt - constants:
        array = to_array(initializers[name])
        if array.ndim > 0:
            total += array.size
            nonzero += int(np.count_nonzero(array.astype(np.float64) != zero_points.get(name, 0.0)))
    return total, nonzero


def _spread(zero_point: Array, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Array:
    """Make a zero point [] (per tensor), [C] (per channel) or [.., groups, ..] broadcast to `shape`."""
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    values = zero_point.astype(np.float64)
    if block_size:
        return np.repeat(values, block_size, axis=axis).take(range(shape[axis]), axis=axis)
    if values.ndim == 1:
        return values.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
    return values


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {each.name: get_attribute_value(each) for each in node.attribute}


def _onnx_macs(model: Any, feeds: Mapping[str, Array]) -> int | Reason:
    """Multiply-adds of one run over `feeds`, from the shapes that ONNX infers; or why they cannot be told."""
    try:
        shapes = _shapes(model, feeds)
        return sum(_node_macs(node, shapes) for node in model.graph.node)
    except _Unknown as unknown:
        return Reason(unknown)


class _Unknown(Exception):
    """Why the multiply-adds of a graph cannot be told."""


def _shapes(model: Any, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, once the inputs have those of `feeds`; a tensor of unknown shape is left out."""
    from onnx.shape_inference import InferenceError, infer_shapes

    for value in model.graph.input:
        if value.name in feeds:
            shape = value.type.tensor_type.shape
            shape.ClearField("dim")
            for size in feeds[value.name].shape:
                shape.dim.add().dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = infer_shapes(model, data_prop=True).graph
    except InferenceError as error:
        raise _Unknown(f"ONNX cannot infer the shapes: {str(error)[:200]}") from None
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def _node_macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx"):
        raise _Unknown(f"the multiply-adds of {node.op_type} are not counted")
    if node.op_type not in (*_CONVOLUTIONS, *_PRODUCTS):
        return 0
    needed = [node.output[0], node.input[_CONVOLUTIONS.get(node.op_type, 0)]]
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise _Unknown(f"the shape of {missing[0]!r} cannot be inferred")
    output, other = (shapes[name] for name in needed)
    if node.op_type in _CONVOLUTIONS:
        return math.prod(output) * math.prod(other[1:])
    transposed = node.op_type == "Gemm" and _attributes(node).get("transA", 0)
    return math.prod(output) * other[0 if transposed else -1]
