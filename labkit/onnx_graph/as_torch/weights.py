"""What the convolutions and matrix products of a graph multiply by, and along which axis they sum it.

A weight may be stored in another layout than it is read in, and turned over first (Transpose). It is the stored
constant that is pruned, so the axis is told in its layout. What is made real by a Cast is stored in fewer bits, and no
weight here; nor is what is joined out of several constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from labkit.onnx_graph.as_torch.node import Node
from labkit.onnx_graph.as_torch.operators import OPERATORS

_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""Operator → its inputs that are weights, if they are stored."""

_MOVING = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""Operators that give a view of the stored numbers, whose strides tell where each axis comes from."""


def weight_axes(nodes: Iterable[Node], constants: Mapping[str, Tensor]) -> dict[str, int | None]:
    """Stored weight [.., .., …] → its axis that is summed over, where a node first uses it, in the nodes' order.

    The axis is None if it is none of the constant's own: a Reshape has joined or cut it.
    """
    found: dict[str, int | None] = {}
    views = {name: (name, values.detach()) for name, values in constants.items()}
    for node in nodes:
        if node.op_type in _MOVING and all(name in views for name in node.inputs):
            name, view = views[node.inputs[0]]
            others = (views[each][1] for each in node.inputs[1:])
            views[node.outputs[0]] = name, OPERATORS[node.op_type](node, view, *others)
        for slot in _WEIGHTS.get(node.op_type, ()):
            if node.inputs[slot] not in views:
                continue
            name, view = views[node.inputs[slot]]
            if view.is_floating_point() and view.ndim > 1:
                found.setdefault(name, _own_axis(constants[name], view, _summed(node, slot)))
    return found


def _own_axis(stored: Tensor, view: Tensor, axis: int) -> int | None:
    """The axis of `stored` that is `axis` of a view of it: the one as long, on which one step leads as far."""
    if view.untyped_storage().data_ptr() != stored.untyped_storage().data_ptr():
        return None  # a Reshape has copied it
    wanted = view.shape[axis], view.stride(axis)
    axes = (each for each in range(stored.ndim) if (stored.shape[each], stored.stride(each)) == wanted)
    return next(axes, None)


def _summed(node: Node, slot: int) -> int:
    """Which axis of its input at `slot` a convolution or product sums over."""
    if node.op_type == "MatMul":
        return -2 if slot else -1
    if node.op_type == "Gemm":
        return int(bool(node.get("transB", 0))) if slot else int(not node.get("transA", 0))
    return 1 if node.op_type == "Conv" else 0
