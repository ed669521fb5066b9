"""Dynamic quantization: weights are integers in the file, and each activation gets its grid when it is there.

    x ─ DynamicQuantizeLinear ─┬─ x8 ─ MatMulInteger ─ int32 ─ · (scale of x · scale of w) ─ + b ─ y
                               └─ scale and zero_point of this very batch

No calibration, and no grid that is too narrow for what comes: the range is that of the batch itself. It is paid for
at run time: every layer first looks through its whole input for the largest and the smallest value, and gives floats
back. Large matrix products are worth that. A convolution seldom is: it is there for those who want to see it
(`convolutions`), and is often slower than float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import helper

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, add_constant, replace_nodes
from labkit.progress import Progress
from labkit.quantize.gate import Quantizes, Work, start
from labkit.quantize.graph.plan import Layer, Plan
from labkit.quantize.graph.qdq import Rounded, round_weights, weight_grids
from labkit.technique import knob
from labkit.variant import Variant

_LEFT = "a convolution is seldom faster with dynamic quantization: ask for it with convolutions=True"


@dataclass(frozen=True)
class QuantizeDynamic(Quantizes):
    """Weights in 8 bits, activations in 8 bits on a grid that is chosen anew for every batch."""

    name: ClassVar[str] = "quantize_dynamic"
    title: ClassVar[str] = "Dynamic int8"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    granularity: str = knob(
        "per_channel", "a scale for each output channel, or for all", choices=("per_channel", "per_tensor")
    )
    convolutions: bool = knob(False, "convolutions too, which is seldom faster")

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold, round the weights, and put integer operators in the place of the layers.

        Raises TechniqueError if nothing can be quantized, a weight is not finite, or quality drops by more than
        `max_drop_pp` on the dataset's training samples; without a dataset the drop is not measured.
        """
        work = start(variant)
        wanted = tuple(each for each in work.plan.layers if self.convolutions or each.op_type != "Conv")
        graph = Graph(work.model)
        left = {
            graph.producer[each.output].name or each.output: _LEFT
            for each in work.plan.layers
            if each not in wanted
        }
        if not wanted:
            raise TechniqueError(f"nothing in {variant.name!r} is a matrix product, and {_LEFT}")
        work.plan = Plan(wanted, {}, {**work.plan.left, **left})
        grids = weight_grids(graph, work.plan, {}, per_channel=self.granularity == "per_channel")
        work.weights = round_weights(graph, grids)
        return self.write(variant, work, dataset, progress, {}, 0)

    def insert(self, model: onnx.ModelProto, work: Work) -> None:
        """Replace every planned layer of `model`, in place."""
        graph = Graph(model)
        layers = {layer.output: layer for layer in work.plan.layers}
        done: set[str] = set()
        nodes: list[onnx.NodeProto] = []
        for node in graph.nodes:
            layer = layers.get(node.output[0])
            nodes += [node] if layer is None else _integer_layer(graph, node, layer, work, done)
        replace_nodes(model, nodes)


def _integer_layer(
    graph: Graph, node: onnx.NodeProto, layer: Layer, work: Work, done: set[str]
) -> list[onnx.NodeProto]:
    """The nodes that compute `layer` in integers; `done` names what is in the graph already, to be shared."""
    x, y = layer.input, layer.output
    integers, scale, zero_point = (
        graph.new_name(f"{x}/{each}") for each in ("quantized", "scale", "zero_point")
    )
    int32, as_float, unit, product, added = (
        graph.new_name(f"{y}/{each}") for each in ("int32", "float", "unit", "product", "added")
    )
    nodes = []
    if x not in done:
        done.add(x)
        nodes.append(helper.make_node("DynamicQuantizeLinear", [x], [integers, scale, zero_point]))
    weight, weight_scale = _stored(graph, layer, work.weights[layer.weight], done)
    kind = "ConvInteger" if layer.op_type == "Conv" else "MatMulInteger"
    sums = helper.make_node(kind, [integers, weight, zero_point], [int32], node.name)
    if layer.op_type == "Conv":
        sums.attribute.extend(node.attribute)
    nodes += [
        sums,
        helper.make_node("Cast", [int32], [as_float], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [scale, weight_scale], [unit]),
        helper.make_node("Mul", [as_float, unit], [product if layer.bias else y]),
    ]
    if layer.bias:
        bias = graph.constant(layer.bias)
        assert bias is not None  # noqa: S101 - a plan's biases are constants
        if layer.op_type == "Conv":
            bias = bias.reshape(-1, *[1] * (len(graph.constants[layer.weight].dims) - 2))
        stored = add_constant(graph.model, added, bias)
        nodes.append(helper.make_node("Add", [product, stored], [y]))
    return nodes


def _stored(graph: Graph, layer: Layer, rounded: Rounded, done: set[str]) -> tuple[str, str]:
    """Store a weight's integers, [I, O] for a matrix product, and its scale; returns both names."""
    names = graph.new_name(f"{layer.weight}/quantized"), graph.new_name(f"{layer.weight}/scale")
    if layer.weight not in done:
        done.add(layer.weight)
        integers, grid = rounded
        scale = grid.scale
        if layer.op_type == "Conv":
            scale = scale.reshape(-1, *[1] * (integers.ndim - 2)) if scale.ndim else scale
        elif layer.axis == 0:
            integers = np.ascontiguousarray(integers.T)
        for name, values in zip(names, (integers, scale), strict=True):
            add_constant(graph.model, name, values)
    return names
