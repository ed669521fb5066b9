"""How many bits each tensor of a plan has, where not all have 8."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx
from onnx import helper

from labkit.onnx_graph import Graph, replace_nodes
from labkit.quantize.gate import Work
from labkit.quantize.graph.plan import Plan


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
            copy = graph.new_name(f"{layer.input}/{bits}_bits")
            copies[copy], tensors[copy], grids[copy] = layer.input, copy, bits
            graph.producer[layer.output].input[0] = copy
            layer = dataclasses.replace(layer, input=copy)
        layers.append(layer)
    _add_copies(work.model, copies)
    work.plan = dataclasses.replace(work.plan, layers=tuple(layers), tensors=tensors)
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
