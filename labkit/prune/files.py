"""An ONNX file in the hands of what works on modules: PyTorch carries out its graph, and its weights are put back."""

from __future__ import annotations

import dataclasses

from torch import nn

from labkit.errors import TechniqueError
from labkit.onnx_graph import open_graph, set_constant
from labkit.onnx_graph.as_torch import OnnxModule, as_torch
from labkit.variant import Variant


def in_torch(variant: Variant) -> Variant:
    """An ONNX variant as a module that computes the same; TechniqueError for an operator that PyTorch cannot do."""
    return dataclasses.replace(variant, format="torch", model=as_torch(open_graph(variant.payload)))


def as_file(variant: Variant, module: nn.Module) -> bytes:
    """The file of an ONNX variant with the weights that `module`, made of it, has now."""
    assert isinstance(module, OnnxModule)  # noqa: S101 - what is trained is a copy of what went in
    model = open_graph(variant.payload)
    for name, values in module.constants().items():
        set_constant(model, name, values.numpy())
    payload: bytes = model.SerializeToString()
    return payload


def require_floats(variant: Variant) -> None:
    """Raise TechniqueError for a quantized variant: its integers do not tell which weights matter."""
    stored = variant.format == "onnx" and any(
        node.op_type == "DequantizeLinear" for node in open_graph(variant.payload).graph.node
    )
    if stored or variant.quantized:
        raise TechniqueError(f"{variant.name!r} is quantized already: prune first, and quantize the result")
