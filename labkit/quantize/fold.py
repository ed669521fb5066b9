"""Folding a batch normalisation into the convolution before it.

In evaluation mode a batch normalisation multiplies and adds by constants, one pair per channel:

    y = γ · (w∗x + b − μ) / √(σ² + ε) + β  =  (w · k)∗x + (b − μ) · k + β,    k = γ / √(σ² + ε)

One convolution is left, with other weights. Quantization needs this done first: the grid must be chosen for the
weights that are used, and a float multiplication between two integer layers would undo the gain.
"""

from __future__ import annotations

import numpy as np
import onnx

from labkit.quantize.graph import Graph, add_constant, attribute, replace_nodes


def fold_batch_norm(model: onnx.ModelProto) -> int:
    """Fold every Conv → BatchNormalization of `model`, in place; returns how many were folded.

    The convolution's weight [O, I, …] and all four parameters [O] must be constants.
    """
    graph = Graph(model)
    folded = []
    for norm in graph.nodes:
        conv = graph.producer.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or graph.only_consumer(conv.output[0]) is not norm:
            continue
        if attribute(norm, "training_mode", 0) or len([name for name in norm.output if name]) > 1:
            continue
        constants = [graph.constant(name) for name in (conv.input[1], *norm.input[1:], *conv.input[2:3])]
        if any(values is None for values in constants):
            continue
        weight, gamma, beta, mean, variance, *bias = (np.asarray(values, np.float64) for values in constants)
        factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
        name = norm.output[0]
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        shift = beta + ((bias[0] if bias else 0) - mean) * factor
        weight_name = add_constant(model, f"{name}_weight", scaled.astype(np.float32))
        bias_name = add_constant(model, f"{name}_bias", shift.astype(np.float32))
        conv.input[:] = [conv.input[0], weight_name, bias_name]
        conv.output[0] = name
        folded.append(id(norm))
    replace_nodes(model, [node for node in graph.nodes if id(node) not in folded])
    return len(folded)
