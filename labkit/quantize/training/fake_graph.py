"""A graph under quantization-aware training: every tensor of the plan is rounded as the finished file will round it.

A batch normalisation is folded into its convolution before runtimes see it, so what is rounded must be the
weight times k = γ/√(σ² + ε), not the weight (Jacob et al. 2018, section 3.2). Two kinds of statistics are at hand:
the batch's, with which normalisation trains well, and the running averages, which the finished file uses. At first

    y = BN( conv(x, Q(w·k)) / k ),    k from the running averages

so the grid is that of the finished file, and the normalisation, undisturbed, sees the batch's own statistics of
the *rounded* convolution (Krishnamoorthi 2018, section 3.2.2, has a version with two convolutions). When
`frozen` is set, in the second half of the training, the running averages stay as they are and it computes what
the file computes, in training too:  y = conv(x, Q(w·k)) + β − μ·k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from labkit.errors import DataError
from labkit.onnx_graph import Graph, attribute
from labkit.onnx_graph.as_torch.module import OnnxModule
from labkit.onnx_graph.as_torch.node import Node, to_tensor
from labkit.quantize.arithmetic.grid import Grid
from labkit.quantize.graph.plan import Layer, Plan
from labkit.quantize.graph.qdq import BIAS_ROOM
from labkit.quantize.training.fake import LearnedGrid


class Norm(nn.Module):
    """A convolution's weight [O, …] and the batch normalisation [O] behind it, not yet folded into one."""

    def __init__(self, graph: Graph, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
        super().__init__()
        weight, gamma, beta, mean, variance = (
            self._values(graph, name) for name in (conv.input[1], *norm.input[1:5])
        )
        for bias in conv.input[2:3]:  # a bias before a normalisation only moves the mean
            mean = mean - self._values(graph, bias)
        self.weight, self.gamma, self.beta = nn.Parameter(weight), nn.Parameter(gamma), nn.Parameter(beta)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.epsilon = attribute(norm, "epsilon", 1e-5)
        self.momentum = 1 - attribute(norm, "momentum", 0.9)

    def _values(self, graph: Graph, name: str) -> Tensor:
        values = graph.constant(name)
        assert values is not None  # noqa: S101 - folding has seen that it is a constant
        return to_tensor(values, name)

    @property
    def factor(self) -> Tensor:
        """K = γ/√(σ² + ε) with the running variance, [O]."""
        deviation: Tensor = (self.get_buffer("variance") + self.epsilon).sqrt()
        return self.gamma / deviation

    def folded_weight(self) -> Tensor:
        """w·k, [O, …]."""
        return self.weight * self.factor.reshape(-1, *[1] * (self.weight.ndim - 1))

    def folded_bias(self) -> Tensor:
        """β − μ·k, [O]."""
        return self.beta - self.get_buffer("mean") * self.factor

    def normalise(self, y: Tensor) -> Tensor:
        """conv(x, Q(w·k)) → BN(conv(x, Q(w·k)) / k), with the statistics of this batch; moves the running ones."""
        factor = torch.where(self.factor == 0, 1.0, self.factor)  # nothing goes through such a channel
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        y = y.float() / factor.reshape(-1, *[1] * (y.ndim - 2))
        return batch_norm(y, mean, variance, self.gamma, self.beta, True, self.momentum, self.epsilon)


class FakeQuantized(OnnxModule):
    """A folded graph whose weights and activations lie on grids that are learned.

    `base` is the graph before folding. `bits` has a number for every grid of `plan`, `weight_bits` for every weight.
    Until `start_grids` is called nothing is rounded, and each pass widens the ranges that the grids will hold.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        base: onnx.ModelProto,
        plan: Plan,
        bits: Mapping[str, int],
        weight_bits: Mapping[str, int],
        per_channel: bool,
    ) -> None:
        super().__init__(model)
        self.frozen = False
        self._layers: dict[str, Layer] = {layer.output: layer for layer in plan.layers}
        self._grid_of = dict(plan.tensors)
        self._own = {name for name, grid in plan.tensors.items() if name == grid}
        self._means = plan.means
        averaged = {name for node in self.nodes if node.outputs[0] in plan.means for name in node.inputs}
        self._averaged = averaged & self._own
        self._unrounded: dict[str, Tensor] = {}
        self._seen: dict[str, _Seen] = {}
        self._grids = nn.ModuleList()
        self._places: dict[str, int] = {}
        for name in sorted(self._own):
            self._add(name, LearnedGrid(bits[name], signed=False))
        for layer in plan.layers:
            if layer.weight not in self._places:
                axis = layer.axis if per_channel else None
                channels = self.constant(layer.weight).shape[layer.axis]
                self._add(layer.weight, LearnedGrid(weight_bits[layer.weight], True, axis, channels))
        self._norms = nn.ModuleList()
        self._norm_of: dict[str, int] = {}
        graph = Graph(base)
        for name in self._layers:
            norm = graph.producer.get(name)
            if norm is not None and norm.op_type == "BatchNormalization":
                self._norm_of[name] = len(self._norms)
                self._norms.append(Norm(graph, graph.producer[norm.input[0]], norm))

    def _add(self, name: str, grid: LearnedGrid) -> None:
        self._places[name] = len(self._grids)
        self._grids.append(grid)

    def learned(self, name: str) -> LearnedGrid:
        """The grid of a tensor or a weight."""
        return cast(LearnedGrid, self._grids[self._places[name]])

    def norm(self, layer: Layer) -> Norm | None:
        """The batch normalisation that was folded into a layer."""
        place = self._norm_of.get(layer.output)
        return None if place is None else cast(Norm, self._norms[place])

    def weight(self, layer: Layer) -> Tensor:
        """A layer's weight in floats, folded."""
        norm = self.norm(layer)
        return self.constant(layer.weight) if norm is None else norm.folded_weight()

    def bias(self, layer: Layer) -> Tensor | None:
        """A layer's bias, folded; None without one."""
        norm = self.norm(layer)
        if norm is not None:
            return norm.folded_bias()
        return self.constant(layer.bias) if layer.bias else None

    def forward(self, *inputs: Tensor) -> Any:
        """As in OnnxModule."""
        try:
            return super().forward(*inputs)
        finally:
            self._unrounded.clear()

    def compute(self, node: Node, inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
        """As the finished file does: the plan's layers with a rounded weight, its means of what is not rounded."""
        if node.outputs[0] in self._means:
            inputs = [self._unrounded.get(name, x) for name, x in zip(node.inputs, inputs, strict=True)]
        layer = self._layers.get(node.outputs[0])
        if layer is None:
            return super().compute(node, inputs)
        weight = self.learned(layer.weight)(self.weight(layer))
        norm = self.norm(layer)
        if norm is None or not self.training or self.frozen:
            bias = self._rounded_bias(layer)
            return super().compute(node, [inputs[0], weight, *([] if bias is None else [bias])])
        (y,) = super().compute(node, [inputs[0], weight])
        return (norm.normalise(y),)

    def _rounded_bias(self, layer: Layer) -> Tensor | None:
        """The bias as int32 will hold it, in units of the input's step times the weight's; straight through.

        With 8 bits that unit is too small to matter. With 4 and 4 it is 256 times as large, and half of it can decide
        to which of 16 values a sum is rounded.
        """
        bias, unit = self.bias(layer), self._unit(layer)
        if bias is None or unit is None:
            return bias
        rounded = (bias.detach().double() / unit).round() * unit
        return bias + (rounded.float() - bias).detach()

    def _unit(self, layer: Layer) -> Tensor | None:
        """What 1 stands for in a layer's integer sums, [] or [O]; None until the grids have started."""
        grids = self.learned(self._grid_of[layer.input]), self.learned(layer.weight)
        if not all(grid.started for grid in grids):
            return None
        return (grids[0].scale * grids[1].scale).detach().double()

    def settle(self, name: str, value: Tensor) -> Tensor:
        """A tensor with a grid of its own is rounded; one that shares a grid lies on it already."""
        if name not in self._own:
            return value
        if name in self._averaged:
            self._unrounded[name] = value
        grid = self.learned(name)
        if not grid.started:
            self._seen.setdefault(name, _Seen()).add(name, value)
        rounded: Tensor = grid(value)
        return rounded

    def start_grids(self) -> None:
        """Choose where each grid's learning begins, from the weights and from what has passed through so far.

        Raises DataError if that was nothing but zeros.
        """
        if not any(seen.low or seen.high for seen in self._seen.values()):
            raise DataError(
                "every activation is 0 for every calibration sample: use samples like the real ones"
            )
        for name, seen in self._seen.items():
            low, high, size = np.array([seen.low, seen.high, seen.total / seen.count])
            self.learned(name).start(low, high, size, seen.values_per_sample)
        for layer in self._layers.values():
            weight, grid = self.weight(layer).detach(), self.learned(layer.weight)
            rows = weight.reshape(1, -1) if grid.axis is None else weight.movedim(grid.axis, 0).flatten(1)
            low, high, size = rows.amin(1), rows.amax(1), rows.abs().mean(1)
            each = [part.reshape(grid.scale.shape).numpy() for part in (low, high, size)]
            grid.start(each[0], each[1], each[2], rows.shape[1])
        self._leave_room()
        self._seen.clear()

    def _leave_room(self) -> None:
        """Make the steps of channels of almost no weights so large that their bias fits into int32."""
        for layer in self._layers.values():  # two layers may share a weight
            grid, bias = self.learned(layer.weight), self.bias(layer)
            if bias is not None:
                step = self.learned(self._grid_of[layer.input]).scale.detach()
                least = bias.detach().abs() / (step * BIAS_ROOM)
                grid.at_least(least if grid.axis is not None else least.max())

    def keep_valid(self) -> None:
        """After a step of the optimizer: no scale at or below 0, and none so small that a bias leaves int32."""
        for name in self._places:
            self.learned(name).keep_positive()
        self._leave_room()

    def grids(self) -> dict[str, Grid]:
        """What was learned: the grid of every tensor and weight of the plan."""
        return {name: self.learned(name).grid() for name in self._places}


@dataclass
class _Seen:
    """What passed through one tensor: its range, and the mean size of its numbers."""

    low: float = 0.0
    high: float = 0.0
    total: float = 0.0
    count: int = 0
    values_per_sample: int = 1

    def add(self, name: str, value: Tensor) -> None:
        """One more batch [N, …]. Raises DataError if a value is NaN or infinite."""
        value = value.detach()
        low, high = float(value.min()), float(value.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"the calibration samples make the activation {name!r} NaN or infinite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += float(value.abs().sum(dtype=torch.float64))
        self.count += value.numel()
        self.values_per_sample = max(1, value.numel() // len(value))
