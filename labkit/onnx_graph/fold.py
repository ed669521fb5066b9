"""Rewritings that leave the function as it is, and integers a better graph to work on.

`fold_batch_norm`: in evaluation mode a batch normalisation multiplies and adds constants, two per channel:

    y = γ · (w∗x + b − μ) / √(σ² + ε) + β  =  (w · k)∗x + (b − μ) · k + β,    k = γ / √(σ² + ε)

One convolution is left, with other weights. Quantization needs this done first: the grid must be chosen for
the weights that are used, and a float multiplication between two integer layers would undo the gain.

`join_bias`: MatMul, then Add of a constant → Gemm. Only a bias that belongs to its layer joins int32 sums.
`own_biases`: a bias that two layers share becomes two, so that each can be changed alone.
`own_norms`: the same for the four parameters of a batch normalisation.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from labkit.onnx_graph.graph import Graph, add_constant, attribute, replace_nodes, set_constant
from labkit.onnx_graph.macs import dims_of
from labkit.variant import Array


def fold_batch_norm(model: onnx.ModelProto) -> int:
    """Fold every Conv → BatchNormalization of `model`, in place; returns how many were folded.

    The convolution's weight [O, I, …] and all four parameters [O] must be constants, and the weight float32.
    """
    graph = Graph(model)
    folded = []
    for norm in graph.nodes:
        conv = graph.producer.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or graph.only_consumer(conv.output[0]) is None:
            continue
        if attribute(norm, "training_mode", 0):
            continue
        constants = [graph.constant(name) for name in (conv.input[1], *norm.input[1:], *conv.input[2:3])]
        if any(values is None for values in constants):
            continue
        if graph.constants[conv.input[1]].data_type != onnx.TensorProto.FLOAT:
            continue
        weight, gamma, beta, mean, variance, *bias = (np.asarray(values, np.float64) for values in constants)
        factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
        name = norm.output[0]
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        shift = beta + ((bias[0] if bias else 0) - mean) * factor
        weight_name = _store(graph, conv.input[1], f"{name}/weight", scaled)
        bias_name = _store(graph, next(iter(conv.input[2:3]), ""), f"{name}/bias", shift)
        conv.input[:] = [conv.input[0], weight_name, bias_name]
        conv.output[0] = name
        folded.append(id(norm))
    replace_nodes(model, [node for node in graph.nodes if id(node) not in folded])
    return len(folded)


def _store(graph: Graph, name: str, other_name: str, values: Array) -> str:
    """Store what the constant `name` has become, under its own name if nothing else reads it; returns the name.

    A layer is known by the name of its weight: folded or not, it is the same layer.
    """
    model, values = graph.model, values.astype(np.float32)
    if not name or graph.only_consumer(name) is None:
        return add_constant(model, graph.new_name(other_name), values)
    set_constant(model, name, values)
    return name


def join_bias(model: onnx.ModelProto) -> int:
    """Turn every MatMul [N, I]·[I, O] + [O] of `model` into one Gemm, in place; returns how many."""
    graph = Graph(model)
    shapes = dims_of(onnx.shape_inference.infer_shapes(model).graph)
    joined: dict[int, onnx.NodeProto | None] = {}
    for node in graph.nodes:
        add = graph.only_consumer(node.output[0]) if node.op_type == "MatMul" else None
        if add is None or add.op_type != "Add" or len(shapes.get(node.input[0], ())) != 2:
            continue
        bias = next((name for name in add.input if name != node.output[0]), "")
        weight, values = graph.constant(node.input[1]), graph.constant(bias)
        if weight is None or values is None or weight.ndim != 2 or values.shape != weight.shape[1:]:
            continue
        joined[id(node)] = helper.make_node("Gemm", [*node.input, bias], [add.output[0]], node.name)
        joined[id(add)] = None
    nodes = [joined.get(id(node), node) for node in graph.nodes]
    replace_nodes(model, [node for node in nodes if node is not None])
    return len(joined) // 2


def own_biases(model: onnx.ModelProto) -> None:
    """Give every Conv and Gemm of `model` a stored bias that nothing else reads, in place."""
    graph = Graph(model)
    for node in graph.nodes:
        shared = node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2]
        bias = graph.constant(node.input[2]) if shared else None
        if bias is not None and len(graph.consumers[node.input[2]]) > 1:
            own = graph.new_name(f"{node.output[0]}/own_bias")
            node.input[2] = add_constant(model, own, bias)
    replace_nodes(model, graph.nodes)


def own_norms(model: onnx.ModelProto) -> None:
    """Give every BatchNormalization of `model` four constants that nothing else reads, in place."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type != "BatchNormalization":
            continue
        inputs = list(node.input)
        for place, part in enumerate(("scale", "shift", "mean", "variance"), 1):
            name = inputs[place]
            values = graph.constant(name)
            if values is None or (graph.only_consumer(name) is not None and inputs.count(name) == 1):
                continue
            node.input[place] = add_constant(model, graph.new_name(f"{node.output[0]}/{part}"), values)
    replace_nodes(model, graph.nodes)
