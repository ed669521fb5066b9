"""Fewer than 8 bits in a QDQ graph: where they go, and how they are stored so that runtimes still use integers.

Engines multiply int8 by uint8 and nothing smaller. So a number of 4 bits travels as one of 8 of which 16 values
are used, and integer arithmetic stays what it is:

    activations   x ─ Q (uint8) ─ Clip (0 … 15) ─ DQ       Q by itself would go on to 255
    weights       INT4 in the file ─ Cast to int8 ─ DQ     half the bytes; engines cast once, when they load it

ONNX's own UINT4 says the same of an activation, but ONNX Runtime 1.31 computes it in float, and has been seen
to corrupt its memory in doing so; and INT4 weights without the Cast make its convolutions float.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from labkit.onnx_graph import Graph, add_constant, replace_nodes
from labkit.quantize.arithmetic import Grid, integer_range
from labkit.quantize.gate import Work
from labkit.quantize.plan import Plan
from labkit.quantize.qdq import Rounded, _raise_opset, insert_qdq
from labkit.variant import Array


def plan_bits(
    work: Work, weight_bits: int, activation_bits: int, edge_bits: int
) -> tuple[dict[str, int], dict[str, int]]:
    """(bits of each grid of `work.plan`, bits of each weight); graph and plan are changed in place where needed.

    The first and the last layer have `edge_bits`. A tensor that only layers read takes their bits; one that is read by
    others too keeps 8, and each layer of fewer bits that reads it rounds a copy.
    """
    edges = {work.plan.layers[0].output, work.plan.layers[-1].output}
    weights: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for layer in work.plan.layers:
        bits = edge_bits if layer.output in edges else weight_bits
        weights[layer.weight] = max(bits, weights.get(layer.weight, 0))
        wanted[layer.output] = edge_bits if layer.output in edges else activation_bits
    graph = Graph(work.model)
    tensors = dict(work.plan.tensors)
    grids = dict.fromkeys(set(tensors.values()), 8)
    copies: dict[str, str] = {}
    layers = []
    for layer in work.plan.layers:
        grid, bits = tensors[layer.input], wanted[layer.output]
        readers = _readers(graph, work.plan, grid)
        if bits < 8 and all(wanted.get(reader) == bits for reader in readers):
            grids[grid] = bits
        elif bits < 8:
            copy = f"{layer.input}/{bits}_bits"
            copies[copy], tensors[copy], grids[copy] = layer.input, copy, bits
            graph.producer[layer.output].input[0] = copy
            layer = dataclasses.replace(layer, input=copy)
        layers.append(layer)
    _add_copies(work.model, copies)
    work.plan = Plan(tuple(layers), tensors, work.plan.left)
    return grids, weights


def _readers(graph: Graph, plan: Plan, grid: str) -> set[str]:
    """The first output of every node that reads a tensor on `grid`, but for those that only move its values.

    "" stands for the model's own output.
    """
    members = {name for name, each in plan.tensors.items() if each == grid}
    readers = {node.output[0] for name in members for node in graph.consumers[name]} - members
    return readers | {""} if members & graph.outputs else readers


def _add_copies(model: onnx.ModelProto, copies: Mapping[str, str]) -> None:
    """Copy → the tensor that it is a copy of: an Identity for each, before its first reader."""
    nodes, made = [], set()
    for node in model.graph.node:
        for name in node.input:
            if name in copies and name not in made:
                made.add(name)
                nodes.append(helper.make_node("Identity", [copies[name]], [name], name))
        nodes.append(node)
    replace_nodes(model, nodes)


def insert_low_bits(
    model: onnx.ModelProto, plan: Plan, activations: Mapping[str, Grid], weights: Mapping[str, Rounded]
) -> None:
    """`insert_qdq`, with numbers of fewer than 8 bits stored as above. Changes `model` in place."""
    small = {name: rounded.integers for name, rounded in weights.items() if rounded.grid.bits <= 4}
    if small:
        _raise_opset(model)
    as_bytes = {name: Rounded(each.integers, _in_bytes(each.grid)) for name, each in weights.items()}
    insert_qdq(model, plan, {name: _in_bytes(grid) for name, grid in activations.items()}, as_bytes)
    clipped = {f"{name}/scale": grid.bits for name, grid in activations.items() if grid.bits < 8}
    stored = {f"{name}/quantized": values for name, values in small.items()}
    nodes = []
    for node in Graph(model).nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            nodes.append(_store_int4(model, node, stored[node.input[0]]))
        nodes.append(node)
        if node.op_type == "QuantizeLinear" and node.input[1] in clipped:
            nodes.append(_clip(model, node, clipped[node.input[1]]))
    replace_nodes(model, nodes)


def _in_bytes(grid: Grid) -> Grid:
    """The same grid, stored in 8 bits."""
    return dataclasses.replace(grid, bits=8)


def _clip(model: onnx.ModelProto, quantize: onnx.NodeProto, bits: int) -> onnx.NodeProto:
    """Keep what QuantizeLinear gives within `bits` bits."""
    name = quantize.output[0]
    quantize.output[0] = f"{name}/unclipped"
    largest = add_constant(model, f"{name}/largest", np.asarray(integer_range(bits, False)[1], np.uint8))
    return helper.make_node("Clip", [f"{name}/unclipped", "", largest], [name], f"{name}/clip")


def _store_int4(model: onnx.ModelProto, dequantize: onnx.NodeProto, values: Array) -> onnx.NodeProto:
    """Store whole numbers −8 … 7 two to a byte, the first in the lower half; returns the Cast that reads them."""
    name = dequantize.input[0]
    nibbles = np.pad(values.flatten().astype(np.uint8) & 15, (0, values.size % 2))
    packed = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    model.graph.initializer.append(
        helper.make_tensor(f"{name}/int4", TensorProto.INT4, values.shape, packed, raw=True)
    )
    dequantize.input[0] = f"{name}/int8"
    return helper.make_node("Cast", [f"{name}/int4"], [f"{name}/int8"], f"{name}/cast", to=TensorProto.INT8)
