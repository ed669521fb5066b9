"""Quantized models as ONNX writes them: QuantizeLinear and DequantizeLinear (QDQ) around float operators.

The file says *where* numbers are rounded, in standard operators; the runtime recognises the pattern and
computes with integers. So one file serves ONNX Runtime, OpenVINO and others:

    x ─ Q ─ DQ ─┐                            what a runtime makes of it:
    w8 ── DQ ───┼─ Conv ─ Relu ─ Q ─ DQ ─        x8 ─ QLinearConv ─ y8
    b32 ─ DQ ───┘

Activations are unsigned and asymmetric, per tensor, unless a plan wants one signed; weights signed and symmetric, per
output channel, per group or per tensor; biases int32 in units of (input's scale · weight's scale). Without Q and DQ on
the activations it is *weight-only* quantization: small in the file, float in the arithmetic.

Engines multiply int8 by uint8 and nothing smaller. So a number of 4 bits travels as one of 8 of which 16 values are
used, and integer arithmetic stays what it is:

    activations   x ─ Q (uint8) ─ Clip (0 … 15) ─ DQ       Q by itself would go on to 255
    weights       INT4 in the file ─ Cast to int8 ─ DQ     half the bytes; engines cast once, when they load it

ONNX's own UINT4 says the same of an activation, but ONNX Runtime 1.31 computes it in float, and has been seen to
corrupt its memory in doing so; and INT4 weights without the Cast make its convolutions float. Weights of 2 and 3
bits are stored in INT4 too: no engine reads anything smaller.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, add_constant, replace_nodes
from labkit.quantize.arithmetic.grid import Grid, choose_scale, integer_range, quantize_bias, weight_grid
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.graph.plan import Layer, Plan
from labkit.variant import Array

_INT4_OPSET = 21  # the first with 4-bit tensors, and with a scale per group
_INT4_IR_VERSION = 10
BIAS_ROOM = 2.0**30  # the largest bias, in its unit: half of what int32 holds, the other half is for the sums
_NIBBLE = 4
SMALLEST_GROUP = 16  # of ONNX Runtime's packed product


class Rounded(NamedTuple):
    """A tensor as whole numbers, and the grid that says what they stand for."""

    integers: Array
    grid: Grid


def activation_grids(
    ranges: Mapping[str, Range], bits: int = 8, signed: Collection[str] = ()
) -> dict[str, Grid]:
    """The per-tensor grid of each range: unsigned and asymmetric, but for the names in `signed`.

    Those get a signed, symmetric one, unless nothing in their range is negative.
    """
    grids = {}
    for name, each in ranges.items():
        both = name in signed and each.low < 0
        scale, zero_point = choose_scale(each.low, each.high, bits, symmetric=both, signed=both)
        grids[name] = Grid(scale, zero_point, bits, both)
    return grids


def weight_grids(
    graph: Graph,
    plan: Plan,
    activations: Mapping[str, Grid],
    bits: int | Mapping[str, int] = 8,
    per_channel: bool = True,
    group_size: int = 0,
) -> dict[str, Grid]:
    """The grid of each weight in `plan`; `bits` for all, or by the weight's name.

    OpenVINO wants whole groups: where they do not divide a layer's input channels, it gets groups of half the size or
    less, down to 16, and below that (a depthwise convolution has one channel) a scale per channel.
    A bias is stored in int32 on the grid of its layer's products, so a channel of almost no weights gets a scale
    that still leaves its bias room there, in every layer that shares the weight.
    """
    grids: dict[str, Grid] = {}
    for layer in plan.layers:
        if layer.weight not in grids:
            weight = graph.constant(layer.weight)
            assert weight is not None  # noqa: S101 - a plan's weights are constants
            count = bits if isinstance(bits, int) else bits[layer.weight]
            whole = math.gcd(group_size, weight.shape[layer.group_axis])
            if group_size and whole >= SMALLEST_GROUP:
                grids[layer.weight] = weight_grid(weight, layer.group_axis, count, whole)
            else:
                grids[layer.weight] = weight_grid(weight, layer.axis if per_channel else None, count)
        grid, bias = grids[layer.weight], graph.constant(layer.bias)
        if bias is not None and layer.input in plan.tensors and not grid.group_size:
            unit = activations[plan.tensors[layer.input]].scale.astype(np.float64) * BIAS_ROOM
            least = np.maximum(np.abs(bias), 1e-25) / unit
            scale = np.maximum(grid.scale, least if per_channel else least.max()).astype(np.float32)
            grids[layer.weight] = dataclasses.replace(grid, scale=scale)
    return grids


def round_weights(graph: Graph, grids: Mapping[str, Grid]) -> dict[str, Rounded]:
    """Each weight on the nearest point of its grid."""
    rounded = {}
    for name, grid in grids.items():
        weight = graph.constant(name)
        assert weight is not None  # noqa: S101 - as in weight_grids
        rounded[name] = Rounded(grid.quantize(weight), grid)
    return rounded


def insert_qdq(
    model: onnx.ModelProto, plan: Plan, activations: Mapping[str, Grid], weights: Mapping[str, Rounded]
) -> None:
    """Write `plan` into `model`, in place: a grid for every tensor that has its own, a weight for every layer."""
    if any(each.grid.bits <= _NIBBLE or each.grid.group_size for each in weights.values()):
        _raise_opset(model)
    graph = Graph(model)
    for name in sorted(set(plan.tensors.values())):
        grid = activations[name]
        add_constant(model, graph.new_name(f"{name}/scale"), grid.scale)
        zero_point = grid.zero_point.astype(np.int8 if grid.signed else np.uint8)
        add_constant(model, graph.new_name(f"{name}/zero_point"), zero_point)
    layers = {layer.output: layer for layer in plan.layers}
    done: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for value in model.graph.input:
        nodes += _round(graph, value.name, plan, activations)
    for node in graph.nodes:
        layer = layers.get(node.output[0])
        if layer is not None:
            nodes += _quantize_layer(graph, node, layer, plan, weights, done)
            nodes += _quantize_bias(graph, node, layer, plan, activations, weights)
        nodes.append(node)
        for name in list(node.output):
            nodes += _round(graph, name, plan, activations)
    del model.graph.value_info[:]
    replace_nodes(model, nodes)


def _raise_opset(model: onnx.ModelProto) -> None:
    """Make it at least the opset that has 4-bit tensors and groups. Raises TechniqueError if onnx cannot."""
    standard = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if standard.version < _INT4_OPSET:
        try:
            model.CopyFrom(onnx.version_converter.convert_version(model, _INT4_OPSET))
        except Exception as error:
            raise TechniqueError(
                f"weights of fewer than 8 bits need opset {_INT4_OPSET}, and onnx cannot convert the model from "
                f"{standard.version} ({str(error).strip()[:120]}): export it again with opset {_INT4_OPSET}"
            ) from None
    model.ir_version = max(model.ir_version, _INT4_IR_VERSION)


def _round(graph: Graph, name: str, plan: Plan, activations: Mapping[str, Grid]) -> list[onnx.NodeProto]:
    """Q and DQ behind the tensor `name`, its users moved behind them; nothing if it is not planned.

    A tensor that shares another's grid holds that one's values, moved: it is rounded already, and OpenVINO would really
    compute a second rounding. Both engines carry integers through what only moves them by themselves; ONNX Runtime
    only does not through a Flatten, and wants to be told again behind it.
    """
    if name not in plan.tensors:
        return []
    source, result, grid = name, graph.new_name(f"{name}/dequantized"), plan.tensors[name]
    if grid != name and graph.producer[name].op_type != "Flatten":
        return []
    if (
        name in graph.outputs and name in graph.producer
    ):  # the model's output keeps its name, so what comes before gets another
        source, result = graph.new_name(f"{name}/float"), name
        producer = graph.producer[name]
        producer.output[list(producer.output).index(name)] = source
    for user in graph.consumers[name]:
        if user.output[0] in plan.means:
            user.input[:] = [source if each == name else each for each in user.input]
            continue
        user.input[:] = [result if each == name else each for each in user.input]
    integers = graph.new_name(f"{name}/quantized")
    parameters = [graph.new_name(f"{grid}/{each}") for each in ("scale", "zero_point")]
    nodes = [helper.make_node("QuantizeLinear", [source, *parameters], [integers], f"{name}/quantize")]
    bits = activations[grid].bits
    if bits < 8:
        nodes[0].output[0] = graph.new_name(f"{integers}/unclipped")
        largest = np.asarray(integer_range(bits, signed=False)[1], np.uint8)
        limits = ["", add_constant(graph.model, graph.new_name(f"{integers}/largest"), largest)]
        nodes.append(helper.make_node("Clip", [nodes[0].output[0], *limits], [integers], f"{name}/clip"))
    dequantize = helper.make_node("DequantizeLinear", [integers, *parameters], [result], f"{name}/dequantize")
    return [*nodes, dequantize]


def _quantize_layer(
    graph: Graph,
    node: onnx.NodeProto,
    layer: Layer,
    plan: Plan,
    weights: Mapping[str, Rounded],
    done: set[str],
) -> list[onnx.NodeProto]:
    """Have the layer read its weight from whole numbers; returns the nodes that make floats of them.

    `done` names the weights that are stored already: two layers may share one.
    """
    node.input[1] = graph.new_name(f"{layer.weight}/dequantized")
    if layer.weight in done:
        return []
    done.add(layer.weight)
    rounded = weights[layer.weight]
    # OpenVINO 2026.4 misreads 4-bit weights of a product with an odd number of inputs, without a word.
    odd = layer.op_type != "Conv" and rounded.integers.shape[layer.group_axis] % 2 == 1
    return _stored(graph, layer.weight, rounded, odd or layer.input in plan.tensors)


def _quantize_bias(
    graph: Graph,
    node: onnx.NodeProto,
    layer: Layer,
    plan: Plan,
    activations: Mapping[str, Grid],
    weights: Mapping[str, Rounded],
) -> list[onnx.NodeProto]:
    """The bias in int32, if the products that it joins are integers too."""
    bias, grid = graph.constant(layer.bias), weights[layer.weight].grid
    if bias is None or layer.input not in plan.tensors or grid.group_size:
        return []
    scale = np.asarray(activations[plan.tensors[layer.input]].scale * grid.scale, np.float32)
    integers, name = quantize_bias(bias, scale), f"{layer.output}/bias"
    node.input[2] = graph.new_name(f"{name}/dequantized")
    unit = Grid(scale, np.zeros(scale.shape, np.int32), 32, True, 0 if scale.ndim else None)
    return _stored(graph, name, Rounded(integers, unit), True)


def _stored(graph: Graph, name: str, rounded: Rounded, as_bytes: bool) -> list[onnx.NodeProto]:
    """Store whole numbers with their grid; returns the nodes that read them.

    Four bits are stored two to a byte; `as_bytes` says that whole bytes are wanted, as by integer arithmetic.
    """
    integers, grid = rounded
    settings: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
    if grid.group_size:
        settings["block_size"] = grid.group_size
    values, nodes, model = graph.new_name(f"{name}/quantized"), [], graph.model
    scales, zero_points = graph.new_name(f"{name}/scale"), graph.new_name(f"{name}/zero_point")
    zero_point = grid.zero_point.astype(integers.dtype)
    if grid.bits > _NIBBLE:
        add_constant(model, values, integers)
        add_constant(model, zero_points, zero_point)
    elif as_bytes:
        nibbles = graph.new_name(f"{name}/int4")
        _add_nibbles(model, nibbles, integers)
        nodes.append(helper.make_node("Cast", [nibbles], [values], f"{name}/cast", to=onnx.TensorProto.INT8))
        add_constant(model, zero_points, zero_point)
    else:
        _add_nibbles(model, values, integers)
        _add_nibbles(model, zero_points, zero_point)
    add_constant(model, scales, grid.scale)
    inputs, result = [values, scales, zero_points], graph.new_name(f"{name}/dequantized")
    dequantize = helper.make_node("DequantizeLinear", inputs, [result], f"{name}/dequantize", **settings)
    return [*nodes, dequantize]


def _add_nibbles(model: onnx.ModelProto, name: str, values: Array) -> None:
    """Store whole numbers −8 … 7, two to a byte."""
    packed = pack_nibbles(values).tobytes()
    model.graph.initializer.append(
        helper.make_tensor(name, onnx.TensorProto.INT4, values.shape, packed, raw=True)
    )


def pack_nibbles(values: Array) -> Array:
    """Whole numbers of 4 bits, two to a byte, the first in the lower half: [n] → [⌈n / 2⌉] uint8."""
    nibbles = values.astype(np.uint8).reshape(-1) & 0x0F
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    return np.asarray(nibbles[::2] | nibbles[1::2] << 4, np.uint8)
