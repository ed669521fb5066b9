"""Which constants of a graph are learned, so that training may move them: the file does not say.

It follows from what a constant meets. The weights and biases of convolutions and matrix products are learned, the
scales and shifts of normalisations, and embedding tables; and what is added to that which one of these has just put
out: the bias of a product, the embedding of positions; but no single number, such as the 3 of a hard-swish. All else
is arithmetic: the mean and the deviation by which an image is made normal, the mask of an attention, the bounds of a
Clip, the number that a Pad fills in. A constant that is used in both ways stays as it is. So does one of which
nothing can be told, such as a factor: not to train it costs little, and to train what was meant as a setting makes
another model.
"""

from __future__ import annotations

import math

from labkit.onnx_graph.graph import Graph

_LEARNED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "Gather": (0,),
}
"""Operator → its inputs that are learned, if they are constants."""

_MOVING = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Identity", "Cast", "Dropout")


def learned_constants(graph: Graph) -> set[str]:
    """The names of the constants that training may move; whole numbers that stand in such a place among them."""
    behind = {
        name: name for name in graph.constants
    }  # a constant, or what a Transpose makes of it → the constant
    put_out: set[str] = set()  # by what has learned, its values at most moved
    learned: set[str] = set()
    settings: set[str] = set()
    for node in graph.nodes:
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        if node.op_type in _MOVING and moved and all(name in behind for name in moved):
            behind[node.output[0]] = behind[node.input[0]]
            settings.update(behind[name] for name in node.input[1:] if name in behind)
            continue
        places = _LEARNED.get(node.op_type, ())
        is_moved = node.op_type in (*_MOVING, "Add") and any(name in put_out for name in node.input)
        if node.op_type == "Add" and is_moved:
            places = tuple(
                place for place, name in enumerate(node.input) if not _is_number(graph, behind.get(name, ""))
            )
        for place, name in enumerate(node.input):
            if name in behind:
                (learned if place in places else settings).add(behind[name])
        if is_moved or any(node.input[place] in behind for place in places if place < len(node.input)):
            put_out.update(node.output)
    return learned - settings


def _is_number(graph: Graph, name: str) -> bool:
    """Whether a constant is one number, as the 3 of a hard-swish is, and no bias: that has one for each channel."""
    return name in graph.constants and math.prod(graph.constants[name].dims) == 1
