"""Weights in few bits that become float32 once, when the file is opened, and not in every run.

A runtime computes from constants what it can beforehand. ONNX Runtime makes an exception of DequantizeLinear, because
that might still become part of an integer operator. Where none can be (the activations stay float), the weight of a
convolution is then expanded in every run, and the convolution, which sees no constant, does without the layout that
it is fast in: a ResNet-20 takes 2.5 times as long. The same numbers are  float(integers) · scale,  a Cast and a
Mul, and these every runtime does away with.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper

from labkit.onnx_graph import Graph, add_constant, attribute, replace_nodes


def expand_when_loaded(model: onnx.ModelProto, layers: Collection[str]) -> None:
    """Read the weights of `layers`, named by their outputs, through a Cast and a Mul, in place.

    For weights on symmetric grids (zero point 0), per tensor or per channel. A weight that others read too, or that
    has a scale for each group, stays as it is.
    """
    graph = Graph(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        readers = graph.consumers[node.output[0]]
        ours = node.op_type == "DequantizeLinear" and all(each.output[0] in layers for each in readers)
        nodes += _expanded(graph, node) if ours and not attribute(node, "block_size", 0) else [node]
    replace_nodes(model, nodes)


def _expanded(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Cast and Mul, with the scale [] or [C] in a shape that meets the weight's [..., C, ...]."""
    integers, result = node.input[0], node.output[0]
    scale = graph.constant(node.input[1])
    assert scale is not None  # noqa: S101 - we have just written it
    if scale.ndim:
        along = np.ones(len(graph.constants[integers].dims), int)
        along[attribute(node, "axis", 1)] = scale.size
        scale = scale.reshape(along)
    factor = add_constant(graph.model, graph.new_name(f"{result}/factor"), scale)
    floats = graph.new_name(f"{result}/integers")
    return [
        helper.make_node("Cast", [integers], [floats], f"{node.name}/cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, factor], [result], node.name),
    ]
