"""The graph as a torch module: its weights are parameters, and calling it carries out its nodes in their order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
from torch import Tensor, nn

from labkit.errors import TechniqueError
from labkit.onnx_graph.as_torch.learned import learned_constants
from labkit.onnx_graph.as_torch.node import Node, to_tensor
from labkit.onnx_graph.as_torch.operators import OPERATORS
from labkit.onnx_graph.as_torch.weights import weight_axes
from labkit.onnx_graph.graph import Graph
from labkit.onnx_graph.macs import in_control_flow


class OnnxModule(nn.Module):
    """An ONNX graph that torch computes, and whose weights torch can train.

    Call it with the graph's inputs in their order; it returns its output, or a tuple of them. A constant that is
    learned (`learned_constants`) is a parameter, any other a buffer. In training mode a BatchNormalization uses the
    batch's statistics and updates its running averages, and Dropout drops.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = Graph(model)
        self.nodes = [Node(proto) for proto in graph.nodes]
        _check(graph)
        self.input_names = [v.name for v in model.graph.input]
        self.output_names = [v.name for v in model.graph.output]
        self._keys: dict[str, str] = {}
        learned = learned_constants(graph)
        for name in graph.constants:
            values = graph.constant(name)
            assert values is not None  # noqa: S101 - it is one of the constants
            self._store(name, to_tensor(values, name), name in learned)
        self._axes = weight_axes(self.nodes, self.constants())
        last = {name: index for index, node in enumerate(self.nodes) for name in node.inputs}
        kept = {*self.output_names, *self._keys}
        self._finished: list[list[str]] = [[] for _ in self.nodes]
        for name, index in last.items():
            if name and name not in kept:
                self._finished[index].append(name)

    def _store(self, name: str, values: Tensor, trained: bool) -> None:
        """Keep a constant under a name that torch allows: one without dots."""
        key = self._keys[name] = f"{name.replace('.', '/')}#{len(self._keys)}"
        if trained and values.is_floating_point():
            self.register_parameter(key, nn.Parameter(values))
        else:
            self.register_buffer(key, values)

    def constant(self, name: str) -> Tensor:
        """The parameter or buffer that the graph calls `name`."""
        tensor: Tensor = getattr(self, self._keys[name])
        return tensor

    def constants(self) -> dict[str, Tensor]:
        """All of them, by the names that the graph gives them, as they are now."""
        return {name: self.constant(name).detach() for name in self._keys}

    def weights(self) -> dict[str, Tensor]:
        """What its convolutions and products multiply by, under the graph's names, in its order: [.., .., …].

        As it is stored, which may be turned over: `input_axes` tell.
        """
        return {name: self.constant(name) for name in self._axes}

    def input_axes(self) -> dict[str, int]:
        """Of each of the `weights` the axis that is summed over, from where a node first uses it.

        Raises TechniqueError if a weight has none: the graph joins or cuts its axes before it multiplies.
        """
        axes = {name: axis for name, axis in self._axes.items() if axis is not None}
        if unclear := next((name for name in self._axes if name not in axes), None):
            raise TechniqueError(
                f"the weight {unclear!r} is stored in another shape than it is multiplied in, so its input axis is "
                "not to be told: store it as it is used (labkit.onnx_graph.optimize.optimize_graph, level 'basic')"
            )
        return axes

    def forward(self, *inputs: Tensor) -> Any:
        """The graph's output, or a tuple of its outputs; raises TechniqueError for what an operator cannot do."""
        values: dict[str, Tensor] = dict(zip(self.input_names, inputs, strict=True))
        values |= {name: self.constant(name) for name in self._keys}
        for name in self.input_names:
            values[name] = self.settle(name, values[name])
        for node, finished in zip(self.nodes, self._finished, strict=True):
            results = self.compute(node, [values[name] if name else None for name in node.inputs])
            for name, result in zip(node.outputs, results, strict=False):
                values[name] = self.settle(name, result)
            for name in finished:
                values.pop(name, None)
        outputs = tuple(values[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def compute(self, node: Node, inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs of one node."""
        node.training = self.training
        result = OPERATORS[node.op_type](node, *inputs)
        return result if isinstance(result, tuple) else (result,)

    def settle(self, name: str, value: Tensor) -> Tensor:
        """What is done to each tensor as soon as it is there: here nothing; a quantized graph rounds some."""
        return value


def as_torch(model: onnx.ModelProto) -> OnnxModule:
    """The graph of `model`, as `open_graph` gives it, as a module in evaluation mode.

    Raises TechniqueError for an operator that is not in the table, naming it.
    """
    return OnnxModule(model).eval()


def _check(graph: Graph) -> None:
    """Raise TechniqueError unless all operators are known."""
    if inside := in_control_flow(graph.model.graph):
        raise TechniqueError(f"the graph has {inside}")
    unknown = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in graph.nodes
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS
    )
    if unknown:
        names = ", ".join(f"{name} ({count}×)" for name, count in sorted(unknown.items()))
        raise TechniqueError(
            f"the graph uses {names}, which labkit cannot carry out in PyTorch, where it prunes, trains and "
            "hears a teacher: train the model where it was made, or quantize it after training (labkit.QuantizeInt8)"
        )
