"""Counting what a model holds and what it must do: parameters, and multiply-adds per sample.

A convolution multiplies once for every number it puts out and every weight that reaches that number; a matrix
product [m, k] · [k, n] does m·k·n. Everything else (activations, additions, normalisation) is small beside
these and left out, as the papers do (`onnx_graph/macs.py` holds the rule). A zero weight is multiplied like any
other: zeros shrink `nonzero_parameters`, not `macs`.

A batch normalisation that an exporter folded into the convolution before it is gone from the ONNX file: its
two parameters per channel became one bias, and by that the counts before and after export differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.measure.records import Reason
from labkit.variant import Array, Variant


@dataclass(frozen=True)
class Counts:
    """What was counted; `macs` are of one sample."""

    macs: int | Reason
    parameters: int
    nonzero_parameters: int


def count(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    """Count `variant` on `feeds`, one sample or as many as it insists on: PyTorch runs it, ONNX needs the shapes."""
    counts = _count_onnx(variant, feeds) if variant.format == "onnx" else _count_torch(variant, feeds)
    samples = variant.fixed_batch or 1
    if isinstance(counts.macs, Reason):
        return counts
    return dataclasses.replace(counts, macs=counts.macs // samples)


def _count_torch(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    """PyTorch's own counter calls a product two operations; it sees those of attention in its plain form only."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    module = variant.model
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(*(torch.from_numpy(feeds[spec.name]) for spec in variant.inputs))
    finally:
        for each, training in modes:
            each.training = training
    parameters = list(module.parameters())
    return Counts(
        counter.get_total_flops() // 2,
        sum(parameter.numel() for parameter in parameters),
        sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
    )


def _count_onnx(variant: Variant, feeds: Mapping[str, Array]) -> Counts:
    import onnx

    model = onnx.load_model_from_string(variant.payload)
    return Counts(_onnx_macs(model, feeds), *_onnx_parameters(model))


def _onnx_parameters(model: Any) -> tuple[int, int]:
    """How many numbers the learnt tensors hold, and how many of them are not zero (not at the zero point)."""
    from labkit.onnx_graph.stored import run_graphs

    totals, nonzero = zip(*map(_graph_parameters, run_graphs(model)), strict=True)
    return sum(totals), sum(nonzero)


def _graph_parameters(graph: Any) -> tuple[int, int]:
    """The same of one graph, without those inside its nodes."""
    from onnx.numpy_helper import to_array

    from labkit.onnx_graph.macs import learnt_tensors, stored_tensors

    stored = stored_tensors(graph)
    zero_points: dict[str, Array] = {}
    for node in graph.node:
        inputs = [stored.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and len(inputs) > 2 and inputs[0] and inputs[2]:
            zero_points[node.input[0]] = _spread(
                to_array(inputs[2]), tuple(inputs[0].dims), _attributes(node)
            )
    total = nonzero = 0
    for name, tensor in learnt_tensors(graph).items():
        array = to_array(tensor)
        total += array.size
        nonzero += int(np.count_nonzero(array.astype(np.float64) != zero_points.get(name, 0.0)))
    return total, nonzero


def _spread(zero_point: Array, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Array:
    """Make a zero point [] (per tensor), [C] (per channel) or [.., groups, ..] broadcast to `shape`."""
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    values = zero_point.astype(np.float64)
    if block_size:
        return np.repeat(values, block_size, axis=axis).take(range(shape[axis]), axis=axis)
    if values.ndim == 1:
        return values.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
    return values


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {each.name: get_attribute_value(each) for each in node.attribute}


def _onnx_macs(model: Any, feeds: Mapping[str, Array]) -> int | Reason:
    """Multiply-adds of one run over `feeds`, from the shapes that ONNX infers; or why they cannot be told."""
    from labkit.onnx_graph.macs import Uncounted, infer_dims, node_macs

    try:
        shapes = infer_dims(model, {name: array.shape for name, array in feeds.items()})
        return sum(node_macs(node, shapes) for node in model.graph.node)
    except Uncounted as unknown:
        return Reason(unknown)
