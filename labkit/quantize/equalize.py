"""Cross-layer equalisation: the same function, with weights that share one grid better.

A ReLU does not care about scale: relu(s·x) = s·relu(x) for s > 0. So between two layers each channel may be made
smaller by s in the first, and larger by s in the second, and nothing changes at the output:

    W2 · relu(W1·x + b1)  =  (W2·S) · relu(S⁻¹·W1·x + S⁻¹·b1)

Per-tensor quantization does care: one grid must serve all channels of a weight, and a channel whose weights are
small beside another's is rounded to nothing. With r1 and r2 the largest weights of a channel in the first and in the
second layer, s = √(r1 / r2) makes both √(r1·r2): every channel then uses the same part of both grids
(Nagel et al. 2019, section 4.1, equation 11).

A ReLU6 stops at 6, and after rescaling at another number in each channel. Kept so, the function stays exactly what
it was, but no engine has that fused into a convolution. Lifted to a ReLU, as the paper does, it stays fast, and is
another function wherever an activation passed 6.

`Unbalance` does the opposite, to see what per-tensor quantization makes of it: in the field such weights come from
training, above all of depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import helper

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.onnx_graph import (
    Graph,
    add_constant,
    attribute,
    fold_batch_norm,
    join_bias,
    open_graph,
    replace_nodes,
    set_constant,
)
from labkit.progress import Progress
from labkit.technique import Technique, knob
from labkit.variant import Array, Variant

_MOST_ROUNDS = 40
_SETTLED = 1e-3
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class Equalize(Technique):
    """Rescale channels between layers so that a single grid per weight suits them all; the function stays."""

    name: ClassVar[str] = "equalize"
    title: ClassVar[str] = "Cross-layer equalisation"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    relu6: str = knob("keep", "exactly the same function; or lifted to a ReLU", choices=("keep", "lift"))

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold batch normalisations, then equalise pair after pair until nothing moves.

        Raises TechniqueError if no two layers can share their scale.
        """
        model, pairs = _open(variant, self.relu6 == "lift")
        for turn in range(_MOST_ROUNDS):
            moved = 0.0
            for pair in pairs:
                first, second = pair.largest(model)
                in_use = (first > 0) & (second > 0)
                factor = np.where(in_use, np.sqrt(second / np.where(in_use, first, 1)), 1.0)
                pair.rescale(model, factor)
                moved = max(moved, float(np.abs(np.log(factor)).max()))
            progress((turn + 1) / _MOST_ROUNDS, f"round {turn + 1}: a scale moved by up to {moved:.1%}")
            if moved < _SETTLED:
                break
        return _derived(self, variant, model)


@dataclass(frozen=True)
class Unbalance(Technique):
    """Rescale channels between layers at random: the same function, and a hard case for per-tensor grids."""

    name: ClassVar[str] = "unbalance"
    title: ClassVar[str] = "Unbalanced channels"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    spread: float = knob(100.0, "largest ratio between two channels", above=1.0, max=1e6)
    seed: int = knob(0, "all randomness follows from it", min=0, max=2**31 - 1)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Raises TechniqueError if no two layers can share their scale."""
        model, pairs = _open(variant, lift=False)
        random = np.random.default_rng(self.seed)
        for pair in pairs:
            pair.rescale(model, self.spread ** random.uniform(-0.5, 0.5, pair.channels(model)))
        return _derived(self, variant, model)


@dataclass(frozen=True)
class Pair:
    """Two neighbouring layers, as names of tensors ("" for none): what must be rescaled together."""

    first: str
    first_axis: int
    bias: str
    cap: str
    second: str
    second_axis: int

    def channels(self, model: onnx.ModelProto) -> int:
        """How many there are between the two."""
        return int(_constant(model, self.first).shape[self.first_axis])

    def largest(self, model: onnx.ModelProto) -> tuple[Array, Array]:
        """The largest weight of each channel, in the first layer and in the second."""
        sides = ((self.first, self.first_axis), (self.second, self.second_axis))
        first, second = (_largest(_constant(model, name).astype(np.float64), axis) for name, axis in sides)
        return first, second

    def rescale(self, model: onnx.ModelProto, factor: Array) -> None:
        """Multiply what is between the two layers by `factor` [channels], and divide the second layer by it."""
        changes = [(self.first, self.first_axis, factor), (self.second, self.second_axis, 1 / factor)]
        changes += [(name, 0, factor) for name in (self.bias, self.cap) if name]
        for name, axis, by in changes:
            values = _constant(model, name)
            shape = [1] * values.ndim
            shape[axis] = -1
            set_constant(model, name, (values * by.reshape(shape)).astype(np.float32))


def _open(variant: Variant, lift: bool) -> tuple[onnx.ModelProto, list[Pair]]:
    """The graph with batch normalisations folded and ReLU6 taken apart, and all pairs in it."""
    model = open_graph(variant.payload)
    fold_batch_norm(model)
    join_bias(model)
    _open_relu6(model, lift)
    pairs = list(_pairs(Graph(model)))
    if not pairs:
        raise TechniqueError(
            f"{variant.name!r} has no two layers with nothing but a ReLU between them: there is no scale to share"
        )
    return model, pairs


def _derived(technique: Technique, variant: Variant, model: onnx.ModelProto) -> Variant:
    name = f"{variant.name}+{technique.name}"
    return variant.derive(name, technique.step(variant), model=model.SerializeToString())


def _open_relu6(model: onnx.ModelProto, lift: bool) -> None:
    """Behind a convolution: Clip(0, 6) → Relu, and, unless it is lifted, Min with a cap of 6 in each channel."""
    graph = Graph(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        producer = graph.producer.get(node.input[0]) if node.op_type == "Clip" else None
        limits = [graph.constant(name) for name in node.input[1:3]]
        weight = graph.constant(producer.input[1]) if producer and producer.op_type == "Conv" else None
        if weight is None or len(limits) < 2 or limits[0] != 0 or limits[1] is None:
            nodes.append(node)
            continue
        result = node.output[0]
        relu = helper.make_node("Relu", [node.input[0]], [result if lift else f"{result}/relu"], node.name)
        nodes.append(relu)
        if not lift:
            shape = (len(weight), *[1] * (weight.ndim - 2))
            cap = add_constant(model, f"{result}/cap", np.full(shape, limits[1], np.float32))
            nodes.append(helper.make_node("Min", [relu.output[0], cap], [result], f"{node.name}/cap"))
    replace_nodes(model, nodes)


def _pairs(graph: Graph) -> Iterator[Pair]:
    """Every layer whose output goes, through nothing but ReLU, cap and pooling, to one other layer."""
    for node in graph.nodes:
        first = _axes(graph, node)
        if first is None:
            continue
        name, cap = node.output[0], ""
        while (user := graph.only_consumer(name)) is not None:
            if user.op_type == "Min" and user.input[1].endswith("/cap"):
                cap = user.input[1]
            elif user.op_type != "Relu" and user.op_type not in _POOLS:
                break
            name = user.output[0]
        second = _axes(graph, user) if user is not None and user.input[0] == name else None
        if user is None or second is None:
            continue
        bias = next(iter(node.input[2:3]), "")
        if bias and (graph.constant(bias) is None or len(graph.consumers[bias]) > 1):
            continue
        yield Pair(node.input[1], first[0], bias, cap, user.input[1], second[1])


def _axes(graph: Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """The weight's axes of output and of input channels; None if its channels cannot be rescaled alone."""
    weight = graph.constant(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if weight is None or len(graph.consumers[node.input[1]]) > 1:
        return None
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        if groups == 1:
            return 0, 1
        return (0, 0) if groups == weight.shape[0] and weight.shape[1] == 1 else None
    if weight.ndim != 2 or attribute(node, "transA", 0):
        return None
    return (0, 1) if attribute(node, "transB", 0) else (1, 0)


def _constant(model: onnx.ModelProto, name: str) -> Array:
    values = Graph(model).constant(name)
    assert values is not None  # noqa: S101 - a pair's tensors are constants
    return values


def _largest(weight: Array, axis: int) -> Array:
    return np.asarray(np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis)))
