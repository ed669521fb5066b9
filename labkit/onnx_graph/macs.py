"""The rule by which an ONNX graph is counted: which tensors are learnt, and each node's multiply-adds.

A convolution multiplies once for every number it puts out and every weight that reaches that number; a matrix
product [m, k] · [k, n] does m·k·n. Everything else is small beside these and counts as none. What multiplies in
a way that is not told by two shapes (an LSTM, a Loop, an operator of somebody's own) is not guessed: `Uncounted`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto

from labkit.onnx_graph.graph import attribute, inner_graphs
from labkit.onnx_graph.stored import within

Dims = tuple[int | str | None, ...]
"""A tensor's sizes; a str is a named dimension that may vary, None one that nobody knows."""

_CONSTANT_INPUTS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "BatchNormalization": (3, 4),
    "Resize": (1, 2),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
}
"""Operator → its inputs that hold scales, zero points, running statistics: chosen or measured, not learnt."""

_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operator → which input holds the weight [outputs, inputs per group, …kernel]."""

_INTEGER_WEIGHTS = {
    "DequantizeLinear": 0,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Operator → the input that may be a weight stored as integers."""

_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm")
_UNCOUNTED = (
    "ConvTranspose",
    "DeformConv",
    "LSTM",
    "GRU",
    "RNN",
    "Einsum",
    "Attention",
    "Loop",
    "If",
    "Scan",
)
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

_SMALL_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)


class Uncounted(Exception):
    """Why the multiply-adds of a graph cannot be told."""


def stored_tensors(graph: Any) -> dict[str, TensorProto]:
    """What a graph or function holds by name: its initializers, and what its Constant nodes put out."""
    found = {each.name: each for each in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def learnt_tensors(graph: Any) -> dict[str, TensorProto]:
    """Those of the stored tensors that are learnt: real numbers, or the integers that stand for a weight.

    Single numbers, shapes and indices are not, nor are scales, zero points and running statistics. What the graphs
    inside the nodes hold is theirs.
    """
    stored = stored_tensors(graph)
    constants: set[str] = set()
    learnt = {name for name, each in stored.items() if each.data_type in _REAL}
    for node in (node for each in within(graph) for node in each.node):
        constants.update(
            node.input[slot] for slot in _CONSTANT_INPUTS.get(node.op_type, ()) if slot < len(node.input)
        )
        slot = _INTEGER_WEIGHTS.get(node.op_type)
        if slot is not None and slot < len(node.input) and node.input[slot] in stored:
            learnt.add(node.input[slot])
    integers, scales = _expanded(graph, stored)
    learnt = (learnt | integers) - constants - scales
    return {name: each for name, each in stored.items() if name in learnt and len(each.dims) > 0}


def _expanded(graph: Any, stored: Mapping[str, TensorProto]) -> tuple[set[str], set[str]]:
    """Weights stored as integers that a Cast and a product make real, and the scales that multiply integers."""
    made_real = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and node.input[0] in stored
        and stored[node.input[0]].data_type in _SMALL_INTEGERS
    }
    measured = {
        name for node in graph.node if node.op_type == "DynamicQuantizeLinear" for name in node.output
    }
    products = [node.input for node in graph.node if node.op_type == "Mul"]
    scales = {
        each for inputs in products if not measured.union(made_real).isdisjoint(inputs) for each in inputs
    }
    return set(made_real.values()), scales


def in_control_flow(graph: onnx.GraphProto) -> str:
    """That learnt tensors lie in the branches of an If or the body of a Loop, and the way out; empty if none do."""
    inside = {node.op_type for node in graph.node if any(map(learnt_tensors, within(*inner_graphs(node))))}
    if not inside:
        return ""
    names = " and ".join(sorted(inside))
    return (
        f"weights inside {names} (control flow: branches, or the body of a loop), which labkit neither prunes nor "
        f"trains: export it again without {names}, from a model whose forward makes no such choice and no such loop"
    )


def infer_dims(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | str | None]]) -> dict[str, Dims]:
    """Every tensor's dims once the inputs have `sizes`; one of unknown rank is left out. Changes `model`.

    Raises Uncounted where ONNX finds that the shapes do not fit together.
    """
    for value in model.graph.input:
        if value.name in sizes:
            shape = value.type.tensor_type.shape
            shape.ClearField("dim")
            for size in sizes[value.name]:
                dim = shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
                elif size is not None:
                    dim.dim_param = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise Uncounted(f"ONNX cannot infer the shapes: {str(error)[:200]}") from None
    return dims_of(graph)


def dims_of(graph: onnx.GraphProto) -> dict[str, Dims]:
    """The dims that stand in a graph, by tensor."""
    found: dict[str, Dims] = {each.name: tuple(each.dims) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = value_dims(value)
    return found


def value_dims(value: onnx.ValueInfoProto) -> Dims:
    """The dims of one value that has a shape."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else _named(dim.dim_param)
        for dim in value.type.tensor_type.shape.dim
    )


def _named(name: str) -> str | None:
    """A dimension's name, if a person gave it: the inference calls its own unk__0 and so on."""
    return name if name and not name.startswith("unk__") else None


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Dims]) -> int:
    """Multiply-adds of one run of a node over tensors of `shapes`; Uncounted where these do not tell."""
    if node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx"):
        raise Uncounted(f"the multiply-adds of {node.op_type} are not counted")
    if node.op_type not in (*_CONVOLUTIONS, *_PRODUCTS):
        return 0
    output, other = (
        _sizes(shapes, name) for name in (node.output[0], node.input[_CONVOLUTIONS.get(node.op_type, 0)])
    )
    if node.op_type in _CONVOLUTIONS:
        return math.prod(output) * math.prod(other[1:])
    transposed = node.op_type == "Gemm" and attribute(node, "transA", 0)
    return math.prod(output) * other[0 if transposed else -1]


def _sizes(shapes: Mapping[str, Dims], name: str) -> tuple[int, ...]:
    sizes = tuple(size for size in shapes.get(name, (None,)) if isinstance(size, int))
    if name not in shapes or len(sizes) != len(shapes[name]):
        raise Uncounted(f"the shape of {name!r} cannot be inferred")
    return sizes
