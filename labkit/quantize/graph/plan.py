"""Which tensors of a graph are quantized, decided before anything is measured or changed.

Which tensors are rounded follows from two needs: every layer with weights must find its input on a grid; and a
convolution, or a layer with a ReLU, must put its output on one, or ONNX Runtime computes it in float. Operators
that only move values keep their input's grid; an Add of two tensors on grids gets one too. The output of a last
matrix product stays float: to round it would gain nothing.

OpenVINO has other wishes. It adds a residual branch to a convolution's sums before it rounds them, so a grid between
the two only costs time, and accuracy; and where zero stands in the middle of the grid of a matrix product's input, it
need not correct its sums for it. ONNX Runtime multiplies such signed numbers at half the speed.

One thing OpenVINO 2026.4 gets wrong: of a sequence of integers, [N, T, C] where an image would be [N, C, H, W], it
takes another mean where zero is no end of the grid, or where no layer reads the mean; it says nothing. A transformer
whose tokens are rounded before they are averaged loses half of its accuracy so. What leads to such a mean stays float.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from labkit.onnx_graph import FUSED_ACTIVATIONS, Graph, attribute

LAYOUTS = ("onnxruntime", "openvino")  # the engines that a file can be laid out for
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
MIXING = ("Add", "Concat", "GlobalAveragePool", "AveragePool")
_AVERAGING = ("ReduceMean", "GlobalAveragePool", "AveragePool")
_IMAGE_RANK = 4  # [N, C, H, W]


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

    `left` maps the name of every layer that stays float to the reason. `signed` names the grids that shall have their
    zero in the middle, should anything on them be negative. `means` names the results of operators that read their
    input as it was before it was rounded. `runtime` is the engine that all this is to please.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    left: Mapping[str, str]
    signed: frozenset[str] = field(default_factory=frozenset)
    means: frozenset[str] = field(default_factory=frozenset)
    runtime: str = "onnxruntime"


def make_plan(model: onnx.ModelProto, keep: Collection[str] = (), runtime: str = "onnxruntime") -> Plan:
    """Decide what to quantize in `model` (batch normalisations folded, constants as initializers).

    Layers whose weight is in `keep` stay in float. `runtime`, "onnxruntime" or "openvino", is the one to please.
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
    means = _to_means(graph)
    own_grid = {layer.input for layer in layers}
    for layer in layers if runtime == "onnxruntime" else ():
        rounded = graph.behind_activation(layer.output)
        if {user.output[0] for user in graph.consumers[rounded]} <= means and rounded not in graph.outputs:
            continue
        if layer.op_type == "Conv" or rounded != layer.output:
            own_grid.add(rounded)
    for node in reversed(graph.nodes):
        if node.op_type in MOVING and node.output[0] in own_grid:
            own_grid.add(node.input[0])
    shared: dict[str, str] = {}
    for node in graph.nodes:
        if node.output[0] in means:
            continue
        if node.op_type in MOVING and node.input[0] in own_grid | shared.keys():
            shared[node.output[0]] = shared.get(node.input[0], node.input[0])
        elif node.op_type in MIXING and all(name in own_grid | shared.keys() for name in node.input):
            own_grid.add(graph.behind_activation(node.output[0]))
    tensors = {name: name for name in own_grid} | shared
    of_convolutions = {tensors[layer.input] for layer in layers if layer.op_type == "Conv"}
    of_products = {tensors[layer.input] for layer in layers} - of_convolutions
    signed = frozenset(of_products if runtime == "openvino" else ())
    return Plan(tuple(layers), tensors, left, signed, frozenset(means), runtime)


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


def _to_means(graph: Graph) -> set[str]:
    """The results of means that must be taken in float, and of operators that only move values to there."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.input, *inferred.value_info)
    }
    found: set[str] = set()
    for node in reversed(graph.nodes):
        users = graph.consumers[node.output[0]]
        if node.op_type in _AVERAGING:
            above = graph.producer.get(node.input[0])
            positive = above is not None and above.op_type in FUSED_ACTIVATIONS
            safe = positive and _readers(graph, node.output[0]) <= set(WEIGHTED)
            wanted = ranks.get(node.input[0]) != _IMAGE_RANK and not safe
        else:
            wanted = node.op_type in MOVING and bool(users) and {each.output[0] for each in users} <= found
        if wanted:
            found.add(node.output[0])
    return found


def _readers(graph: Graph, name: str) -> set[str]:
    """The kinds of operators that read a tensor, at most moved; "" for who runs the model."""
    kinds = {""} if name in graph.outputs else set()
    for user in graph.consumers[name]:
        kinds |= _readers(graph, user.output[0]) if user.op_type in MOVING else {user.op_type}
    return kinds
