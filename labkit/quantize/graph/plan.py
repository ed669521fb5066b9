"""Which tensors of a graph are quantized, decided before anything is measured or changed.

Which tensors are rounded follows from two needs: every layer with weights must find its input on a grid; and a
convolution, or a layer with a ReLU, must put its output on one, or ONNX Runtime computes it in float. Operators
that only move values keep their input's grid; an Add of two tensors on grids gets one too. The output of a last
matrix product stays float: to round it would gain nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.onnx_graph import Graph, attribute

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

    @property
    def group_axis(self) -> int:
        """The weight's axis of input channels, along which groups are cut."""
        return 1 - self.axis


@dataclass(frozen=True)
class Plan:
    """What will be quantized: layers, and tensors, each with the tensor whose grid it shares (often itself).

    `left` maps the name of every layer that stays float to the reason.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    left: Mapping[str, str]


def make_plan(model: onnx.ModelProto, keep: Collection[str] = ()) -> Plan:
    """Decide what to quantize in `model` (batch normalisations folded, constants as initializers).

    Layers whose weight is in `keep` stay in float.
    """
    graph = Graph(model)
    layers: list[Layer] = []
    left: dict[str, str] = {}
    axes: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED:
            found = "it was asked to stay in float" if node.input[1] in keep else _layer(graph, node)
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
