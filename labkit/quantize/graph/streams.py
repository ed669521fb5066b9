"""Residual streams in steps of their grid: nothing is left to rescale where a branch is added.

OpenVINO adds a residual branch to a convolution's sums as they leave its registers. Where the branch is on one grid
and the result on another, every sum is multiplied twice on the way, and a convolution of resnet20 takes twice as long:

    y = round(relu(s_w·s_x·sums + b + s_r·r) / s_y)        r: the branch's integers; s: scales

Where all tensors that are added up share one grid, and the numbers are carried in steps of it (s_r = s_y = 1), only
the product with the weights' scale is left, which every convolution has:

    y = round(relu(s_w·s_x/s·sums + b/s + r))              s: the grid that they share

To carry a stream in other units changes nothing else: a ReLU, a mean and a sum are homogeneous, f(x / s) = f(x) / s.
So the layers that write to the stream get weights and biases divided by s, and those that read it weights times s.
The price is the common grid: the tensor with the smallest range gets steps that are coarser than it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.onnx_graph import Graph, set_constant
from labkit.quantize.arithmetic.grid import choose_scale
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.graph.plan import MIXING, MOVING, WEIGHTED, Layer, Plan
from labkit.variant import Array

_HOMOGENEOUS = (*MOVING, *MIXING, "ReduceMean", "Relu")
_MOST_COARSE = 4.0  # a tensor that would lose more than two of its bits to the common grid keeps its own
_LARGEST = 255  # of the 8 bits of an activation


@dataclass(frozen=True)
class Stream:
    """Tensors that can only be carried in other units together, and which of their grids are to be one.

    `members` are all of them, `grids` the names of the grids of those that are added up. `writers` are the layers
    whose result is a member, `readers` those that read one.
    """

    members: frozenset[str]
    grids: frozenset[str]
    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


def carry_in_steps(model: onnx.ModelProto, plan: Plan, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Rewrite the float `model`, in place, so that its residual streams have steps of 1; returns the new ranges.

    ranges: of each grid in `plan`, as calibrated. The function that the model computes stays what it was.
    """
    graph, found = Graph(model), dict(ranges)
    for stream in find_streams(graph, plan):
        held = [Range(min(0.0, ranges[name].low), max(0.0, ranges[name].high)) for name in stream.grids]
        low, high = min(each.low for each in held), max(each.high for each in held)
        scale, zero_point = choose_scale(low, high)
        coarse = min(each.high - each.low for each in held) * _MOST_COARSE < high - low
        if coarse or not _rescale(graph, stream, float(scale)):
            continue
        for name in {plan.tensors[each] for each in stream.members & plan.tensors.keys()}:
            found[name] = Range(ranges[name].low / float(scale), ranges[name].high / float(scale))
        found |= dict.fromkeys(stream.grids, Range(-float(zero_point), float(_LARGEST - zero_point)))
    return found


def _rescale(graph: Graph, stream: Stream, step: float) -> bool:
    """Write weights and biases for a stream in units of `step`; False, and nothing written, if one would overflow."""
    factors: dict[str, float] = {}
    for layer in stream.readers:
        factors[layer.weight] = step
    for layer in stream.writers:
        factors |= {name: factors.get(name, 1.0) / step for name in (layer.weight, layer.bias) if name}
    values: dict[str, Array] = {}
    for name, factor in factors.items():
        constant = graph.constant(name)
        assert constant is not None  # noqa: S101 - a plan's weights and biases are constants
        with np.errstate(over="ignore"):
            values[name] = (constant * factor).astype(np.float32)
    if not all(np.isfinite(each).all() for each in values.values()):
        return False
    for name, each in values.items():
        set_constant(graph.model, name, each)
    return True


def find_streams(graph: Graph, plan: Plan) -> list[Stream]:
    """The residual streams of a graph that can be carried in other units, the rest of it left as it is.

    A stream that reaches the model's input or output, a layer that stays float, a weight or a bias that is used twice,
    or an operator that is not homogeneous, cannot.
    """
    layers = {layer.output: layer for layer in plan.layers}
    uses = Counter(name for layer in plan.layers for name in {layer.weight, layer.bias} - {""})
    streams = []
    for members, added in _connected(graph, layers).items():
        grids = {plan.tensors[name] for name in added if name in plan.tensors}
        writers = [layers[name] for name in members if name in layers]
        readers = [layer for layer in plan.layers if layer.input in members]
        own = all(
            uses[name] == 1 for layer in (*writers, *readers) for name in (layer.weight, layer.bias) if name
        )
        if grids and own and all(_homogeneous(graph, layers, name) for name in members):
            streams.append(Stream(members, frozenset(grids), tuple(writers), tuple(readers)))
    return streams


def _connected(graph: Graph, layers: Mapping[str, Layer]) -> dict[frozenset[str], set[str]]:
    """Sets of tensors that homogeneous operators connect, each with those of them that are summands or sums."""
    group_of: dict[str, set[str]] = {}
    added: set[str] = set()
    for node in graph.nodes:
        if node.op_type not in _HOMOGENEOUS or node.output[0] in layers:
            continue
        values = [*(name for name in node.input if name and name not in graph.constants), *node.output]
        together = set().union(*(group_of.get(name, {name}) for name in values))
        group_of.update(dict.fromkeys(together, together))
        if node.op_type == "Add":
            added |= {*node.input, graph.behind_activation(node.output[0])}
    return {frozenset(members): members & added for members in group_of.values()}


def _homogeneous(graph: Graph, layers: Mapping[str, Layer], name: str) -> bool:
    """Whether everything that makes or uses the tensor is a layer of the plan or homogeneous."""
    made_by = graph.producer.get(name)
    if made_by is None or name in graph.outputs:
        return False
    for node in (made_by, *graph.consumers[name]):
        if node.op_type in WEIGHTED:
            fine = node.output[0] in layers and name not in node.input[1:]
        else:
            shifts = node.op_type == "Add" and any(each in graph.constants for each in node.input)
            fine = node.op_type in _HOMOGENEOUS and len(node.output) == 1 and not shifts
        if not fine:
            return False
    return True
