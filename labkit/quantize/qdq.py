"""Quantized models as ONNX writes them: QuantizeLinear and DequantizeLinear (QDQ) around float operators.

The file says *where* numbers are rounded, in standard operators; the runtime recognises the pattern and computes
with integers. So one file serves ONNX Runtime, OpenVINO and others:

    x ─ Q ─ DQ ─┐                            what a runtime makes of it:
    w8 ── DQ ───┼─ Conv ─ Relu ─ Q ─ DQ ─        x8 ─ QLinearConv ─ y8
    b32 ─ DQ ───┘

Activations are unsigned and asymmetric, per tensor; weights signed and symmetric, per output channel (or per
tensor); biases int32 in units of (input's scale · weight's scale). Which tensors are rounded follows from two
needs: every layer with weights must find its input on a grid, and a convolution must put its output on one,
or the runtime cannot fuse it. Operators that only move values keep their input's grid; an Add of two tensors
on grids gets one too. The last linear layer's output stays float: a runtime has it anyway, before rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from labkit.quantize.arithmetic import choose_scale, quantize, quantize_bias, weight_scale
from labkit.quantize.calibrate import Range
from labkit.quantize.graph import Graph, add_constant, attribute, replace_nodes
from labkit.variant import Array

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
_MIXING = ("Add", "Concat", "GlobalAveragePool", "AveragePool")
_FUSED_AFTER = ("Relu", "Clip")


@dataclass(frozen=True)
class Layer:
    """One operator with weights: where they are, and the axis of its output channels."""

    node: onnx.NodeProto
    weight: str
    axis: int
    bias: str | None


@dataclass(frozen=True)
class Plan:
    """What will be quantized: layers, and tensors, each with the tensor whose grid it shares (often itself).

    `left` maps the name of every layer that stays float to the reason.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    left: Mapping[str, str]


def make_plan(model: onnx.ModelProto) -> Plan:
    """Decide what to quantize in `model` (batch normalisations folded, constants as initializers)."""
    graph = Graph(model)
    layers: list[Layer] = []
    left: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED:
            found = _layer(graph, node)
            if isinstance(found, Layer):
                layers.append(found)
            else:
                left[node.name or node.output[0]] = found
    own_grid = {layer.node.input[0] for layer in layers}
    own_grid |= {_settled(graph, layer.node) for layer in layers if layer.node.op_type == "Conv"}
    for node in reversed(graph.nodes):
        if node.op_type in _MOVING and node.output[0] in own_grid:
            own_grid.add(node.input[0])
    shared: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in _MOVING and node.input[0] in own_grid | shared.keys():
            shared[node.output[0]] = shared.get(node.input[0], node.input[0])
        elif node.op_type in _MIXING and all(name in own_grid | shared.keys() for name in node.input):
            own_grid.add(_settled(graph, node))
    return Plan(tuple(layers), {name: name for name in own_grid} | shared, left)


def _layer(graph: Graph, node: onnx.NodeProto) -> Layer | str:
    """The layer that `node` is, or why it stays float."""
    if node.op_type == "ConvTranspose":
        return "transposed convolutions are not quantized"
    weight = graph.constant(node.input[1])
    if weight is None:
        return "its weight is computed, not stored"
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}"
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions"
    if node.op_type == "Gemm":
        if attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1 or attribute(node, "transA", 0):
            return "it scales or transposes its input"
        if bias and (values := graph.constant(bias)) is not None and values.ndim != 1:
            return "its bias is not one number per output"
    if bias and graph.constant(bias) is None:
        return "its bias is computed, not stored"
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    return Layer(node, node.input[1], axis, bias)


def _settled(graph: Graph, node: onnx.NodeProto) -> str:
    """The tensor to round after `node`: beyond the activation function that a runtime fuses with it."""
    name = node.output[0]
    user = graph.only_consumer(name)
    return user.output[0] if user is not None and user.op_type in _FUSED_AFTER else name


def insert_qdq(
    model: onnx.ModelProto, plan: Plan, ranges: Mapping[str, Range], per_channel: bool, weight_bits: int = 8
) -> None:
    """Write `plan` into `model`, in place; `ranges` holds one for every grid in the plan."""
    graph = Graph(model)
    grids = {name: choose_scale(ranges[name].low, ranges[name].high) for name in set(plan.tensors.values())}
    for name, (scale, zero_point) in grids.items():
        add_constant(model, f"{name}_scale", scale)
        add_constant(model, f"{name}_zero_point", zero_point.astype(np.uint8))
    before: dict[int, list[onnx.NodeProto]] = {}
    done: dict[str, Array] = {}
    for layer in plan.layers:
        input_scale = grids[plan.tensors[layer.node.input[0]]][0]
        before[id(layer.node)] = _quantize_layer(model, graph, layer, input_scale, per_channel, weight_bits, done)
    nodes: list[onnx.NodeProto] = []
    for value in model.graph.input:
        nodes += _round(graph, value.name, plan)
    for node in graph.nodes:
        nodes += [*before.get(id(node), ()), node]
        for name in list(node.output):
            nodes += _round(graph, name, plan)
    del model.graph.value_info[:]
    replace_nodes(model, nodes)


def _round(graph: Graph, name: str, plan: Plan) -> list[onnx.NodeProto]:
    """Q and DQ behind the tensor `name`, its users moved behind them; nothing if it is not planned."""
    if name not in plan.tensors:
        return []
    source, result, grid = name, f"{name}_dequantized", plan.tensors[name]
    if name in graph.outputs:  # the model's output keeps its name, so what comes before gets another
        source, result = f"{name}_float", name
        producer = graph.producer[name]
        producer.output[list(producer.output).index(name)] = source
    for user in graph.consumers[name]:
        user.input[:] = [result if each == name else each for each in user.input]
    parameters = [f"{grid}_scale", f"{grid}_zero_point"]
    return [
        helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}_quantized"], f"{name}_quantize"),
        helper.make_node("DequantizeLinear", [f"{name}_quantized", *parameters], [result], f"{name}_dequantize"),
    ]


def _quantize_layer(
    model: onnx.ModelProto,
    graph: Graph,
    layer: Layer,
    input_scale: Array,
    per_channel: bool,
    bits: int,
    done: dict[str, Array],
) -> list[onnx.NodeProto]:
    """Store a layer's weight in int8 and its bias in int32; returns the DequantizeLinear nodes that read them.

    `done` maps weights already stored (layers may share one) to their scales.
    """
    nodes = []
    weight, axis = graph.constant(layer.weight), layer.axis if per_channel else None
    assert weight is not None  # noqa: S101 - `_layer` has checked it
    bias = graph.constant(layer.bias) if layer.bias else None
    if layer.weight not in done:
        scale, zero_point = weight_scale(weight, axis, bits)
        if bias is not None:  # a channel of almost no weights must still leave its bias room in int32
            least = np.abs(bias) / (input_scale.astype(np.float64) * 2**30)
            scale = np.maximum(scale, least if axis is not None else least.max()).astype(np.float32)
        done[layer.weight] = scale
        q = quantize(weight, scale, zero_point, bits, signed=True, axis=axis)
        nodes.append(_dequantized(model, layer.weight, q, scale, axis))
    layer.node.input[1] = f"{layer.weight}_dequantized"
    if layer.bias and bias is not None:
        scale = np.asarray(input_scale * done[layer.weight], np.float32)
        name = f"{layer.node.output[0]}_bias"
        nodes.append(_dequantized(model, name, quantize_bias(bias, scale), scale, 0 if axis is not None else None))
        layer.node.input[2] = f"{name}_dequantized"
    return nodes


def _dequantized(
    model: onnx.ModelProto, name: str, q: Array, scale: Array, axis: int | None
) -> onnx.NodeProto:
    """Store whole numbers with their scale and a zero_point of 0, and make the node that turns them to floats."""
    inputs = [
        add_constant(model, f"{name}_quantized", q),
        add_constant(model, f"{name}_scale", scale),
        add_constant(model, f"{name}_zero_point", np.zeros(scale.shape, q.dtype)),
    ]
    more = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], f"{name}_dequantize", **more)
