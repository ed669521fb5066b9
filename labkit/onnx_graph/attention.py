"""Rewritings of a transformer's graph that leave its function as it is, and engines less to do.

An exporter writes down, step by step, what the network's code says. Engines fuse the steps that they recognise; the
others they compute as they stand, and these, in which PyTorch exports attention and GELU, they do not recognise:

- `transpose_once`: the keys are transposed between two Reshapes. One Transpose does it.
- `split_layers`: one product gives queries, keys and values, and is cut. Three products leave nothing to cut.
- `scale_weights`: queries and keys are multiplied by a constant. Their weights are, once and for all.
- `regroup_gelu`: x · (½ · (1 + erf …)) becomes (x · (1 + erf …)) · ½, which ONNX Runtime knows to be a GELU.
- `flatten_layers`: [N, T, I] · [I, O] + [O] becomes a Gemm of [N·T, I], whose bias joins its integer sums.

All of them work in place, and return how often there was something to do; `simplify` does them one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from labkit.onnx_graph.graph import Graph, add_constant, attribute, keep_used
from labkit.onnx_graph.macs import dims_of
from labkit.variant import Array

Shape = tuple[int | None, ...]
_MOVING = ("Reshape", "Transpose")


def simplify(model: onnx.ModelProto, with_gemms: bool) -> None:
    """All of them, in an order in which each finds what it looks for; the last only `with_gemms`."""
    split_layers(model)
    transpose_once(model)
    scale_weights(model)
    regroup_gelu(model)
    if with_gemms:
        flatten_layers(model)


def transpose_once(model: onnx.ModelProto) -> int:
    """[B, H, T, D] → Reshape [B·H, T, D] → Transpose → Reshape [B, H, D, T]: one Transpose, with one before it.

    All sizes but B must be known.
    """
    graph, shapes = Graph(model), _shapes(model)
    made: dict[int, list[onnx.NodeProto]] = {}
    for last in graph.nodes:
        turn = _maker(graph, last.input[:1], "Transpose") if last.op_type == "Reshape" else None
        first = _maker(graph, turn.input, "Reshape") if turn else None
        if turn is None or first is None or attribute(turn, "perm", None) != [0, 2, 1]:
            continue
        source, middle, target = (
            shapes.get(name, ()) for name in (first.input[0], turn.input[0], last.output[0])
        )
        if len(source) != 4 or None in source[1:]:
            continue
        heads, tokens, depth = source[1:]
        if middle[1:] != (tokens, depth) or target[1:] != (heads, depth, tokens):
            continue
        name, order = first.input[0], [0, 1, 3, 2]
        before = _maker(graph, [name], "Transpose")
        if before is not None and attribute(before, "perm", None):
            name, order = before.input[0], [attribute(before, "perm", None)[axis] for axis in order]
        made[id(last)] = [helper.make_node("Transpose", [name], list(last.output), turn.name, perm=order)]
    _replace(model, graph, made)
    return len(made)


def split_layers(model: onnx.ModelProto) -> int:
    """A layer whose result is only cut along its channels becomes as many layers, each with its part of the weight."""
    graph, shapes = Graph(model), _shapes(model)
    made: dict[int, list[onnx.NodeProto]] = {}
    for split in graph.nodes:
        cuts = split.op_type == "Split" and graph.only_consumer(split.input[0]) is not None
        layer = _layer(graph, split.input[0]) if cuts else None
        sizes = [(shapes.get(name) or (None,))[-1] for name in split.output]
        last_axis = len(shapes.get(split.input[0], ())) - 1
        if layer is None or None in sizes or attribute(split, "axis", 0) not in (-1, last_axis):
            continue
        places = np.cumsum([size or 0 for size in sizes])[:-1]
        weights, biases = np.split(layer.weight, places, axis=1), np.split(layer.bias, places)
        made[id(split)] = [
            node
            for name, weight, bias in zip(split.output, weights, biases, strict=True)
            for node in _product_and_bias(graph, layer.input, weight, bias, name)
        ]
    _replace(model, graph, made)
    return len(made)


def scale_weights(model: onnx.ModelProto) -> int:
    """A layer whose result, at most moved in between, is only multiplied by one number takes that into its weights."""
    graph = Graph(model)
    made: dict[int, list[onnx.NodeProto]] = {}
    for scale in graph.nodes:
        factor, source = _factor(graph, scale)
        name = source
        while graph.only_consumer(name) and _maker(graph, [name], *_MOVING):
            name = graph.producer[name].input[0]
        layer = _layer(graph, name) if factor is not None and graph.only_consumer(name) else None
        if layer is None or factor is None or id(layer.add) in made:
            continue
        weight, bias = layer.weight * factor, layer.bias * factor
        made[id(layer.add)] = _product_and_bias(graph, layer.input, weight, bias, name)
        made[id(scale)] = [helper.make_node("Identity", [source], list(scale.output), scale.name)]
    _replace(model, graph, made)
    return len(made) // 2


def regroup_gelu(model: onnx.ModelProto) -> int:
    """Turn x · (½ · (1 + erf …)) into (x · (1 + erf …)) · ½."""
    graph = Graph(model)
    made: dict[int, list[onnx.NodeProto]] = {}
    for outer in graph.nodes:
        for x, name in (outer.input, outer.input[::-1]) if outer.op_type == "Mul" else ():
            inner = _maker(graph, [name], "Mul")
            half, one_plus_erf = _factor(graph, inner) if inner is not None else (None, "")
            add = _maker(graph, [one_plus_erf], "Add")
            if inner is None or half != 0.5 or add is None or _maker(graph, add.input, "Erf") is None:
                continue
            if x == name or graph.only_consumer(name) is None:
                continue
            constant = next(each for each in inner.input if each != one_plus_erf)
            made[id(inner)] = []
            made[id(outer)] = [
                helper.make_node("Mul", [x, one_plus_erf], [name], inner.name),
                helper.make_node("Mul", [name, constant], list(outer.output), outer.name),
            ]
            break
    _replace(model, graph, made)
    return len(made) // 2


def flatten_layers(model: onnx.ModelProto) -> int:
    """MatMul of [N, T, I] with [I, O], and Add of [O]: Reshape to [N·T, I], Gemm, Reshape back. T must be known."""
    graph, shapes = Graph(model), _shapes(model)
    made: dict[int, list[onnx.NodeProto]] = {}
    for add in graph.nodes:
        layer = _layer(graph, add.output[0])
        shape = shapes.get(layer.input, ()) if layer is not None else ()
        if layer is None or len(shape) < 3 or None in shape[1:]:
            continue
        name, (inputs, outputs) = add.output[0], layer.weight.shape
        flat, product, *sizes = (
            graph.new_name(f"{name}/{each}") for each in ("flat_input", "flat", "flat_shape", "whole_shape")
        )
        add_constant(model, sizes[0], np.array([-1, inputs], np.int64))
        add_constant(model, sizes[1], np.array([-1, *shape[1:-1], outputs], np.int64))
        made[id(add)] = [
            helper.make_node("Reshape", [layer.input, sizes[0]], [flat], flat),
            helper.make_node("Gemm", [flat, layer.weight_name, layer.bias_name], [product], layer.name),
            helper.make_node("Reshape", [product, sizes[1]], [name], name),
        ]
    _replace(model, graph, made)
    return len(made)


@dataclass(frozen=True)
class _Layer:
    """MatMul with a stored float32 weight [I, O], and the Add of a stored bias [O] that alone reads its result."""

    name: str
    input: str
    weight_name: str
    weight: Array
    bias_name: str
    bias: Array
    add: onnx.NodeProto


def _layer(graph: Graph, name: str) -> _Layer | None:
    """The layer that makes the tensor `name`."""
    add = _maker(graph, [name], "Add")
    product = _maker(graph, add.input, "MatMul") if add is not None else None
    if add is None or product is None or graph.only_consumer(product.output[0]) is None:
        return None
    bias_name = next((each for each in add.input if each != product.output[0]), "")
    weight, bias = graph.constant(product.input[1]), graph.constant(bias_name)
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[1:]:
        return None
    if weight.dtype != np.float32:  # what is stored anew is float32
        return None
    return _Layer(product.name, product.input[0], product.input[1], weight, bias_name, bias, add)


def _product_and_bias(
    graph: Graph, source: str, weight: Array, bias: Array, name: str
) -> list[onnx.NodeProto]:
    """MatMul and Add that make `name` out of `source`."""
    product, *stored = (graph.new_name(f"{name}/{each}") for each in ("product", "weight", "bias"))
    for each, values in zip(stored, (weight, bias), strict=True):
        add_constant(graph.model, each, values)
    return [
        helper.make_node("MatMul", [source, stored[0]], [product], product),
        helper.make_node("Add", [product, stored[1]], [name], name),
    ]


def _factor(graph: Graph, node: onnx.NodeProto) -> tuple[np.float32 | None, str]:
    """The one number that a Mul multiplies by, and the tensor that it multiplies; (None, "") if it is no such Mul."""
    for factor, source in (node.input, node.input[::-1]) if node.op_type == "Mul" else ():
        values = graph.constant(factor)
        if values is not None and values.size == 1 and values.ndim <= 1:
            return np.float32(values.item()), source
    return None, ""


def _maker(graph: Graph, names: Sequence[str], *kinds: str) -> onnx.NodeProto | None:
    """The first node of one of these kinds that makes one of the tensors."""
    found = (graph.producer[name] for name in names if name in graph.producer)
    return next((node for node in found if node.op_type in kinds), None)


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Tensor → its sizes, None where one is not known; tensors of unknown rank are left out."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        name: tuple(size if isinstance(size, int) and size else None for size in dims)
        for name, dims in dims_of(inferred).items()
    }


def _replace(model: onnx.ModelProto, graph: Graph, made: dict[int, list[onnx.NodeProto]]) -> None:
    """Put the nodes that were made in the place of others, and drop what then nobody reads."""
    keep_used(model, [new for node in graph.nodes for new in made.get(id(node), [node])])
