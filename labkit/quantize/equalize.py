"""Cross-layer equalisation: the same function, with weights that share one grid better.

A ReLU does not care about scale: relu(s·x) = s·relu(x) for s > 0. So between two layers each channel may be made
smaller by s in the first, and larger by s in the second, and nothing changes at the output:

    W2 · relu(W1·x + b1)  =  (W2·S) · relu(S⁻¹·W1·x + S⁻¹·b1)

Per-tensor quantization does care: one grid must serve all channels of a weight, and a channel whose weights are
small beside another's is rounded to nothing. With r1 and r2 the largest weights of a channel in the first and in the
second layer, s = √(r1 / r2) makes both √(r1·r2): every channel then uses the same part of both grids
(Nagel et al. 2019, section 4.1, equation 11).

A channel of hardly any weight may have a bias all the same. To make that weight large would make the bias immense, and
with it the grid of the activations. So a hundredth of the bias counts too: r1 = max(|w1|, |b1| / 100).

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
from labkit.quantize.gate import Gated, check_weights
from labkit.technique import Technique, knob
from labkit.variant import Array, Variant

_MOST_ROUNDS = 200
_SETTLED = 1e-3
_SHARE_OF_BIAS = 0.01
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class Equalize(Gated):
    """Rescale channels between layers so that a single grid per weight suits them all; the function stays."""

    name: ClassVar[str] = "equalize"
    title: ClassVar[str] = "Cross-layer equalisation"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    relu6: str = knob(
        "keep",
        "exactly the same function; or lifted to a ReLU, another one where an activation passed 6",
        choices=("keep", "lift"),
    )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold batch normalisations, then equalise pair after pair until nothing moves.

        Raises TechniqueError if no two layers can share their scale, a weight is not finite, the model is quantized
        already, or quality drops by more than `max_drop_pp` on the dataset's training samples.
        """
        pairs, values = _open(variant, self.relu6 == "lift")
        for turn in range(_MOST_ROUNDS):
            moved = 0.0
            for pair in pairs:
                first, second = pair.largest(values)
                in_use = (first > 0) & (second > 0)
                factor = np.where(in_use, np.sqrt(second / np.where(in_use, first, 1)), 1.0)
                pair.rescale(values, factor)
                moved = max(moved, float(np.abs(np.log(factor)).max()))
            words = (
                f"{len(pairs)} pairs of layers, round {turn + 1}: a channel moved by {np.expm1(moved):.1%}"
            )
            progress((turn + 1) / _MOST_ROUNDS, words)
            if moved < _SETTLED:
                break
        return self.hold(variant, _derived(self, variant, values), dataset, "relu6='keep'")


@dataclass(frozen=True)
class Unbalance(Technique):
    """Rescale channels between layers at random: the same function, and a hard case for per-tensor grids."""

    name: ClassVar[str] = "unbalance"
    title: ClassVar[str] = "Unbalanced channels"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    spread: float = knob(100.0, "largest ratio between two channels", above=1.0, max=1e6)
    seed: int = knob(0, "all randomness follows from it", min=0, max=2**31 - 1)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Raises TechniqueError as `Equalize` does."""
        pairs, values = _open(variant, lift=False)
        random = np.random.default_rng(self.seed)
        for pair in pairs:
            pair.rescale(values, self.spread ** random.uniform(-0.5, 0.5, pair.channels))
        progress(1.0, f"{len(pairs)} pairs of layers")
        return _derived(self, variant, values)


class _Values(dict[str, Array]):
    """Name → values of the constants of `model`: read when first asked for, in float64 until they are stored."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._graph = Graph(model)

    def __missing__(self, name: str) -> Array:
        values = self._graph.constant(name)
        assert values is not None  # noqa: S101 - a pair's tensors are constants
        self[name] = values.astype(np.float64)
        return self[name]


@dataclass(frozen=True)
class Pair:
    """Two neighbouring layers, as names of tensors ("" for no bias): what must be rescaled together.

    `caps` are the nodes between them that stop at a number: Clip(0, 6), or Min with one number for each channel.
    `cap_shape` is what such numbers need to meet the activations.
    """

    first: str
    first_axis: int
    bias: str
    caps: tuple[onnx.NodeProto, ...]
    cap_shape: tuple[int, ...]
    second: str
    second_axis: int

    @property
    def channels(self) -> int:
        """How many there are between the two."""
        return self.cap_shape[0]

    def largest(self, values: _Values) -> tuple[Array, Array]:
        """The largest weight of each channel [channels], in the first layer and in the second."""
        first = _largest(values[self.first], self.first_axis)
        if self.bias:
            first = np.maximum(first, _SHARE_OF_BIAS * np.abs(values[self.bias]))
        return first, _largest(values[self.second], self.second_axis)

    def rescale(self, values: _Values, factor: Array) -> None:
        """Multiply what is between the two layers by `factor` [channels], and divide the second layer by it."""
        changes = [(self.first, self.first_axis, factor), (self.second, self.second_axis, 1 / factor)]
        changes += [(name, 0, factor) for name in (self.bias, *(cap.input[1] for cap in self.caps)) if name]
        for name, axis, by in changes:
            along = [1] * values[name].ndim
            along[axis] = -1
            values[name] = values[name] * by.reshape(along)


def _open(variant: Variant, lift: bool) -> tuple[list[Pair], _Values]:
    """All pairs in the graph, its batch normalisations folded and its caps ready to be rescaled, or gone."""
    model = open_graph(variant.payload)
    check_weights(variant, model)
    fold_batch_norm(model)
    join_bias(model)
    graph = Graph(model)
    capped = {id(cap): pair for pair in _pairs(graph) for cap in pair.caps}
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        nodes += _open_cap(graph, node, capped[id(node)], lift) if id(node) in capped else [node]
    replace_nodes(model, nodes)
    pairs = list(_pairs(Graph(model)))
    if not pairs:
        raise TechniqueError(
            f"{variant.name!r} has no two layers with nothing but a ReLU between them: there is no scale to share"
        )
    return pairs, _Values(model)


def _open_cap(graph: Graph, node: onnx.NodeProto, pair: Pair, lift: bool) -> list[onnx.NodeProto]:
    """Clip(0, 6) becomes a Relu and a Min with 6 for each channel; lifted, nothing of the cap is left."""
    source, result = node.input[0], node.output[0]
    if node.op_type == "Min":
        for user in graph.consumers[result] if lift else ():
            user.input[:] = [source if name == result else name for name in user.input]
        return [] if lift else [node]
    positive = result if lift else graph.new_name(f"{result}/relu")
    relu = helper.make_node("Relu", [source], [positive], node.name)
    if lift:
        return [relu]
    limit = np.full(pair.cap_shape, graph.constant(node.input[2]), np.float32)
    cap = add_constant(graph.model, graph.new_name(f"{result}/cap"), limit)
    return [relu, helper.make_node("Min", [positive, cap], [result], f"{result}/min")]


def _derived(technique: Technique, variant: Variant, values: _Values) -> Variant:
    for name, changed in values.items():
        set_constant(values.model, name, changed.astype(np.float32))
    name = f"{variant.name}+{technique.name}"
    return variant.derive(name, technique.step(variant), model=values.model.SerializeToString())


def _pairs(graph: Graph) -> Iterator[Pair]:
    """Every layer whose output goes, through nothing but ReLU, caps and pooling, to one other layer."""
    for node in graph.nodes:
        axes = _axes(graph, node)
        if axes is None:
            continue
        weight, bias = graph.constants[node.input[1]], next(iter(node.input[2:3]), "")
        channels, rank = weight.dims[axes[0]], len(weight.dims) if node.op_type == "Conv" else 2
        if bias and (len(graph.consumers[bias]) > 1 or not _is_constant(graph, bias, (channels,))):
            continue
        cap_shape = (channels, *[1] * (rank - 2))
        name, caps = node.output[0], []
        while (user := graph.only_consumer(name)) is not None:
            if _is_cap(graph, user, cap_shape):
                caps.append(user)
            elif user.op_type != "Relu" and not (user.op_type in _POOLS and node.op_type == "Conv"):
                break
            name = user.output[0]
        second = _axes(graph, user) if user is not None and user.input[0] == name else None
        if user is None or second is None or (user.op_type == "Conv") != (node.op_type == "Conv"):
            continue  # a convolution has its channels on another axis than a matrix product
        if graph.constants[user.input[1]].dims[second[1]] == channels:
            yield Pair(node.input[1], axes[0], bias, tuple(caps), cap_shape, user.input[1], second[1])


def _axes(graph: Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """The weight's axes of output and of input channels; None if its channels cannot be rescaled alone."""
    weight = graph.constants.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if (
        weight is None
        or weight.data_type != onnx.TensorProto.FLOAT
        or len(graph.consumers[node.input[1]]) > 1
    ):
        return None
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        if groups == 1:
            return 0, 1
        return (0, 0) if groups == weight.dims[0] and weight.dims[1] == 1 else None
    if len(weight.dims) != 2 or attribute(node, "transA", 0):
        return None
    return (0, 1) if attribute(node, "transB", 0) else (1, 0)


def _is_cap(graph: Graph, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether `node` is Clip(0, a number above 0), or Min(x, one number for each channel)."""
    if node.op_type == "Min":
        return len(node.input) == 2 and _is_constant(graph, node.input[1], shape)
    low, high = (graph.constant(name) for name in (*node.input, "", "")[1:3])
    return node.op_type == "Clip" and low is not None and high is not None and bool(low == 0 < high)


def _is_constant(graph: Graph, name: str, shape: tuple[int, ...]) -> bool:
    """Whether `name` is stored numbers of that shape, for one node alone."""
    return (
        name in graph.constants
        and tuple(graph.constants[name].dims) == shape
        and len(graph.consumers[name]) == 1
    )


def _largest(weight: Array, axis: int) -> Array:
    return np.asarray(np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis)))
