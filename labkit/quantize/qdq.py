"""Quantized models as ONNX writes them: QuantizeLinear and DequantizeLinear (QDQ) around float operators.

The file says *where* numbers are rounded, in standard operators; the runtime recognises the pattern and
computes with integers. So one file serves ONNX Runtime, OpenVINO and others:

    x ─ Q ─ DQ ─┐                            what a runtime makes of it:
    w8 ── DQ ───┼─ Conv ─ Relu ─ Q ─ DQ ─        x8 ─ QLinearConv ─ y8
    b32 ─ DQ ───┘

Activations are unsigned and asymmetric, per tensor; weights signed and symmetric, per output channel (or per
tensor); biases int32 in units of (input's scale · weight's scale). Which tensors are rounded follows from two
needs: every layer with weights must find its input on a grid; and a convolution, or a layer with a ReLU, must
put its output on one, or ONNX Runtime computes it in float. Operators that only move values keep their
input's grid; an Add of two tensors on grids gets one too. The last layer's output stays float: to round it
would gain nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from labkit.onnx_graph import Graph, add_constant, attribute, replace_nodes
from labkit.quantize.arithmetic import choose_scale, quantize, quantize_bias, weight_scale
from labkit.quantize.calibrate import Range
from labkit.variant import Array

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
_MIXING = ("Add", "Concat", "GlobalAveragePool", "AveragePool")
_FUSED_AFTER = ("Relu", "Clip")


@dataclass(frozen=True)
class Layer:
    """One operator with weights, as names of tensors ("" for no bias).

    `axis` is the weight's axis of output channels: 0 in a Conv [O, I, …], 1 in a MatMul [I, O].
    """

    op_type: str
    input: str
    weight: str
    bias: str
    output: str
    axis: int


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
    axes: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED:
            found = _layer(graph, node)
            if isinstance(found, Layer) and axes.setdefault(found.weight, found.axis) != found.axis:
                found = "it shares its weight with a layer that uses it transposed"
            if isinstance(found, Layer):
                layers.append(found)
            else:
                left[node.name or node.output[0]] = found
    own_grid = {layer.input for layer in layers}
    for layer in layers:
        settled = _settled(graph, layer.output)
        if layer.op_type == "Conv" or settled != layer.output:
            own_grid.add(settled)
    for node in reversed(graph.nodes):
        if node.op_type in _MOVING and node.output[0] in own_grid:
            own_grid.add(node.input[0])
    shared: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in _MOVING and node.input[0] in own_grid | shared.keys():
            shared[node.output[0]] = shared.get(node.input[0], node.input[0])
        elif node.op_type in _MIXING and all(name in own_grid | shared.keys() for name in node.input):
            own_grid.add(_settled(graph, node.output[0]))
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
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions"
    if (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0)) != (
        1,
        1,
        0,
    ):
        return "it scales or transposes its input"
    if node.input[0] in graph.constants:
        return "its input is a constant"
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    bias = next(iter(node.input[2:3]), "")
    values = graph.constant(bias)
    if bias and (values is None or values.shape != (weight.shape[axis],)):
        return "its bias is not one stored number per output"
    return Layer(node.op_type, node.input[0], node.input[1], bias, node.output[0], axis)


def _settled(graph: Graph, name: str) -> str:
    """The tensor to round instead of `name`: that behind the activation function that a runtime fuses."""
    user = graph.only_consumer(name)
    return user.output[0] if user is not None and user.op_type in _FUSED_AFTER else name


def insert_qdq(model: onnx.ModelProto, plan: Plan, ranges: Mapping[str, Range], per_channel: bool) -> None:
    """Write `plan` into `model`, in place; `ranges` holds one for every grid in the plan."""
    graph = Graph(model)
    grids = {name: choose_scale(ranges[name].low, ranges[name].high) for name in set(plan.tensors.values())}
    for name, (scale, zero_point) in grids.items():
        add_constant(model, f"{name}/scale", scale)
        add_constant(model, f"{name}/zero_point", zero_point.astype(np.uint8))
    weight_scales: dict[str, Array] = {}
    layers = {layer.output: layer for layer in plan.layers}
    nodes: list[onnx.NodeProto] = []
    for value in model.graph.input:
        nodes += _round(graph, value.name, plan)
    for node in graph.nodes:
        layer = layers.get(node.output[0])
        if layer is not None:
            input_scale = grids[plan.tensors[layer.input]][0]
            nodes += _quantize_layer(graph, node, layer, input_scale, per_channel, weight_scales)
        nodes.append(node)
        for name in list(node.output):
            nodes += _round(graph, name, plan)
    del model.graph.value_info[:]
    replace_nodes(model, nodes)


def _round(graph: Graph, name: str, plan: Plan) -> list[onnx.NodeProto]:
    """Q and DQ behind the tensor `name`, its users moved behind them; nothing if it is not planned."""
    if name not in plan.tensors:
        return []
    source, result, grid = name, f"{name}/dequantized", plan.tensors[name]
    if name in graph.outputs:  # the model's output keeps its name, so what comes before gets another
        source, result = f"{name}/float", name
        producer = graph.producer[name]
        producer.output[list(producer.output).index(name)] = source
    for user in graph.consumers[name]:
        user.input[:] = [result if each == name else each for each in user.input]
    integers, parameters = f"{name}/quantized", [f"{grid}/scale", f"{grid}/zero_point"]
    return [
        helper.make_node("QuantizeLinear", [source, *parameters], [integers], f"{name}/quantize"),
        helper.make_node("DequantizeLinear", [integers, *parameters], [result], f"{name}/dequantize"),
    ]


def _quantize_layer(
    graph: Graph,
    node: onnx.NodeProto,
    layer: Layer,
    input_scale: Array,
    per_channel: bool,
    weight_scales: dict[str, Array],
) -> list[onnx.NodeProto]:
    """Store a layer's weight in int8 and its bias in int32; returns the nodes that make floats of them.

    `weight_scales` keeps the scale of each weight stored so far: two layers may share one.
    """
    nodes = []
    axis = layer.axis if per_channel else None
    weight, bias = graph.constant(layer.weight), graph.constant(layer.bias)
    assert weight is not None  # noqa: S101 - `_layer` has checked it
    if layer.weight not in weight_scales:
        scale, zero_point = weight_scale(weight, axis)
        if bias is not None:  # a channel of almost no weights must still leave its bias room in int32
            least = np.maximum(np.abs(bias), 1e-25) / (input_scale.astype(np.float64) * 2**30)
            scale = np.maximum(scale, least if per_channel else least.max()).astype(np.float32)
        weight_scales[layer.weight] = scale
        q = quantize(weight, scale, zero_point, signed=True, axis=axis)
        nodes.append(_stored(graph.model, layer.weight, q, scale, axis))
    node.input[1] = f"{layer.weight}/dequantized"
    if bias is not None:
        scale = np.asarray(input_scale * weight_scales[layer.weight], np.float32)
        name = f"{layer.output}/bias"
        nodes.append(_stored(graph.model, name, quantize_bias(bias, scale), scale, 0))
        node.input[2] = f"{name}/dequantized"
    return nodes


def _stored(model: onnx.ModelProto, name: str, q: Array, scale: Array, axis: int | None) -> onnx.NodeProto:
    """Store whole numbers with their scale and a zero_point of 0; returns the node that reads them."""
    inputs = [
        add_constant(model, f"{name}/quantized", q),
        add_constant(model, f"{name}/scale", scale),
        add_constant(model, f"{name}/zero_point", np.zeros(scale.shape, q.dtype)),
    ]
    node = helper.make_node("DequantizeLinear", inputs, [f"{name}/dequantized"], f"{name}/dequantize")
    if scale.ndim:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node
