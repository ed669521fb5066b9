"""What the file says of its layers: on which grids its numbers lie, how many weights are zero, what they multiply.

A layer is an operator that multiplies with weights, or a product of two computed matrices. Which of them an engine
can compute in integers follows from the file: the weight must be stored on a grid, the input rounded to one, and,
for a convolution, the output too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.onnx_graph.graph import attribute
from labkit.onnx_graph.macs import Dims, Uncounted, infer_dims, node_macs
from labkit.quantize import quantization_report
from labkit.variant import Array, Variant

KINDS = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "ConvInteger": 1, "MatMulInteger": 1, "MatMulNBits": 1,
    "QLinearConv": 3, "QLinearMatMul": 3,
}  # fmt: skip
"""Operator → which input holds the weight."""

_INTEGER_KINDS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_MOVING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")
_ADDED = re.compile(r"^fused |(_nchwc|_nhwc|_token_\d+|/WithoutBiases|/DequantizationMultiply)+$")
"""What engines add to a name when they replace an operator."""

_REWRITTEN = re.compile(r"(/quantized|/int4|/float16|/bfloat16|_quantized)$")
"""What is appended to a weight's name when it is stored in fewer bits."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of the file.

    `name` is for people (blocks.3.conv1), `node` the operator's own. `macs` are those of one run of the batch, None
    where they are not known. `weight` is as stored, under the name `source`, None if it is computed; the grids are
    "int8", "uint8", … or "" for float. `zeros` is the share of weights that are zero. `channels` (inputs a group,
    outputs, groups) and `size` [H, W] of the input are None for what is no convolution of images.
    """

    name: str
    node: str
    kind: str
    macs: int | None
    source: str
    weight: Array | None
    weight_grid: str
    input_grid: str
    output_grid: str
    zeros: float
    channels: tuple[int, int, int] | None
    size: tuple[int, int] | None

    @property
    def on_grids(self) -> bool:
        """Whether the file gives an engine all that it needs to compute this layer in integers."""
        grids = (self.weight_grid, self.input_grid, self.output_grid or self.kind != "Conv")
        return self.kind in _INTEGER_KINDS or all(grids)

    @property
    def signed(self) -> bool:
        """Whether it reads or writes activations on a signed grid."""
        return "int8" in (self.input_grid, self.output_grid)


class ModelFile:
    """The layers of an ONNX file when it runs a batch of so many samples; `left` are labkit's own reasons."""

    def __init__(self, variant: Variant, batch_size: int) -> None:
        model = name_nodes(open_graph(variant.payload))
        self.quantized = variant.quantized
        self._graph = Graph(model)
        sizes = {spec.name: [batch_size, *spec.shape[1:]] for spec in variant.inputs if spec.shape}
        shapes = _shapes(model, sizes)
        self._by_node = {node.output[0]: _layer(self._graph, node, shapes) for node in self._layer_nodes()}
        self.layers = tuple(self._by_node.values())
        self.left = _left(variant)

    def _layer_nodes(self) -> Iterator[onnx.NodeProto]:
        return (node for node in self._graph.nodes if node.op_type in KINDS)

    def match(self, executed: Sequence[tuple[str, str]]) -> list[Layer | None]:
        """The layer that each executed operator (name, kind) computes; None for those that compute none.

        Each layer is given once. An engine names a fused operator after one of those that it stands for, or after
        the result: then the nearest layer before that result is meant.
        """
        free = {id(layer) for layer in self.layers}
        names = {node.name: node for node in self._graph.nodes if node.name}
        found: list[Layer | None] = [None] * len(executed)
        for near in (False, True):
            for place, (name, kind) in enumerate(executed):
                if found[place] is not None or not _multiplies(kind):
                    continue
                plain = _ADDED.sub("", name)
                node = names.get(name) or names.get(plain) or self._graph.producer.get(plain)
                layer = self._nearest(node, free) if near else self._own(node)
                if layer is not None and id(layer) in free:
                    free.discard(id(layer))
                    found[place] = layer
        return found

    def _own(self, node: onnx.NodeProto | None) -> Layer | None:
        return self._by_node.get(node.output[0]) if node is not None else None

    def _nearest(self, node: onnx.NodeProto | None, free: set[int]) -> Layer | None:
        """Backwards from `node`, the first layer that is free."""
        queue = deque([node] if node is not None else [])
        seen: set[str] = set()
        while queue:
            here = queue.popleft()
            layer = self._own(here)
            if layer is not None:
                if id(layer) in free:
                    return layer
                continue
            for name in here.input:
                before = self._graph.producer.get(name)
                if before is not None and name not in seen:
                    seen.add(name)
                    queue.append(before)
        return None


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node a name, each once, in place: names are all that a profile tells of an operator."""
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = _made_up_name(node)
        seen.add(node.name)
    return model


def _made_up_name(node: onnx.NodeProto) -> str:
    return f"{node.op_type}_{node.output[0]}"


def _multiplies(kind: str) -> bool:
    return any(word in kind for word in ("Conv", "Gemm", "MatMul", "FullyConnected", "Deconvolution"))


def _left(variant: Variant) -> Mapping[str, str]:
    """Why layers stayed float, if labkit quantized this file."""
    try:
        return quantization_report(variant).left
    except TechniqueError:
        return {}


def _shapes(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | str]]) -> Mapping[str, Dims]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        return infer_dims(copy, sizes)
    except Uncounted:
        return {}


def _layer(graph: Graph, node: onnx.NodeProto, shapes: Mapping[str, Dims]) -> Layer:
    slot = KINDS[node.op_type]
    source, weight_grid = _stored(graph, node.input[slot])
    weight = graph.constant(source)
    if node.op_type in _INTEGER_KINDS and weight is not None:
        weight_grid = str(weight.dtype)
    output = graph.behind_activation(node.output[0])
    image, stored = shapes.get(node.input[0], ()), shapes.get(source, ())
    is_image = node.op_type == "Conv" and len(image) == len(stored) == 4
    numbers = [each for each in (*image[2:], *stored) if isinstance(each, int)]
    known = is_image and len(numbers) == 6
    return Layer(
        name=node.name if weight is None else _label(source, node),
        node=node.name,
        kind=node.op_type,
        macs=_macs(node, shapes),
        source=source,
        weight=weight,
        weight_grid=weight_grid,
        input_grid=_grid_of(graph, node.input[0]),
        output_grid=next(
            (_integer_type(graph, user) for user in graph.consumers[output] if _quantizes(user)), ""
        ),
        zeros=float(np.mean(weight == 0)) if weight is not None and weight.size else 0.0,
        channels=(numbers[3], numbers[2], int(attribute(node, "group", 1))) if known else None,
        size=(numbers[0], numbers[1]) if known else None,
    )


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Dims]) -> int | None:
    try:
        return node_macs(node, shapes)
    except Uncounted:
        return None


def _stored(graph: Graph, name: str) -> tuple[str, str]:
    """The constant behind a weight, and the grid on which it is stored ("" for float)."""
    grid = ""
    while (producer := graph.producer.get(name)) is not None and producer.input:
        cast = graph.producer.get(producer.input[0])
        if (
            producer.op_type == "Mul" and cast is not None and cast.op_type == "Cast"
        ):  # integers times a scale
            producer = cast
        if producer.op_type in ("DequantizeLinear", "Cast"):
            constant = graph.constants.get(producer.input[0])
            grid = onnx.TensorProto.DataType.Name(constant.data_type).lower() if constant is not None else ""
        elif producer.op_type not in ("Transpose", "Reshape", "Identity"):
            break
        name = producer.input[0]
    return name, grid if name in graph.constants else ""


def _grid_of(graph: Graph, name: str) -> str:
    """The grid on which a tensor lies, looked for behind operators that only move values."""
    while (producer := graph.producer.get(name)) is not None and producer.op_type in _MOVING:
        name = producer.input[0]
    if producer is None:
        return ""
    return _integer_type(graph, producer) if producer.op_type == "DequantizeLinear" else ""


def _integer_type(graph: Graph, node: onnx.NodeProto) -> str:
    """The type of whole numbers that a QuantizeLinear makes or a DequantizeLinear reads, which the zero point has.

    Without a zero point a QuantizeLinear makes what it says, or uint8, and a DequantizeLinear takes what it gets.
    """
    kind = attribute(node, "output_dtype", 0) if node.op_type == "QuantizeLinear" else 0
    named = node.input[2:3] or (node.input[:1] if node.op_type == "DequantizeLinear" else ())
    for name in named:
        if name in graph.constants:
            kind = graph.constants[name].data_type
        elif (producer := graph.producer.get(name)) is not None and producer.op_type == "QuantizeLinear":
            return _integer_type(graph, producer)
    return str(onnx.TensorProto.DataType.Name(kind or onnx.TensorProto.UINT8)).lower()


def _quantizes(node: onnx.NodeProto) -> bool:
    return node.op_type == "QuantizeLinear"


def _label(source: str, node: onnx.NodeProto) -> str:
    """The layer's name as its weight tells it: blocks.3.conv1 of blocks.3.conv1.weight_quantized.

    Where that is no telling name, the operator's, if it has one: rewriting a file leaves both as they are, but not
    the names of what is computed.
    """
    head, weight, _ = source.partition(".weight")
    is_named = node.name != _made_up_name(node)
    return head if weight else node.name if is_named else _REWRITTEN.sub("", source)
