"""ONNX graphs: finding one's way in them, and rewritings that leave the function as it is."""

from __future__ import annotations

from labkit.onnx_graph.fold import fold_batch_norm, join_bias, own_biases
from labkit.onnx_graph.graph import (
    FUSED_ACTIVATIONS,
    Graph,
    add_constant,
    attribute,
    keep_used,
    read_by,
    replace_nodes,
    set_constant,
)
from labkit.onnx_graph.opening import open_graph
from labkit.onnx_graph.window import Window, window

__all__ = [
    "FUSED_ACTIVATIONS",
    "Graph",
    "Window",
    "add_constant",
    "attribute",
    "fold_batch_norm",
    "join_bias",
    "keep_used",
    "open_graph",
    "own_biases",
    "read_by",
    "replace_nodes",
    "set_constant",
    "window",
]
