"""ONNX → torch: a graph that can be trained, whoever exported it.

A training framework writes ONNX files and reads none: the file says which operators run on which tensors, and
nothing about gradients. But each of those operators has a function of torch's with the same meaning, and torch
knows the gradient of every function. So the graph is carried out node by node, as a runtime would, and what
torch notes on the way is enough to train it.

    module = as_torch(open_graph(variant.payload))
"""

from __future__ import annotations

from labkit.onnx_graph.as_torch.module import OnnxModule, as_torch

__all__ = ["OnnxModule", "as_torch"]
