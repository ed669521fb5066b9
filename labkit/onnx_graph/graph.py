"""Finding one's way in an ONNX graph: who makes a tensor, who uses it, which are constants.

An ONNX graph is a list of nodes that refer to tensors by name, each name written once. Constants are
initializers, or outputs of Constant nodes, which `open_graph` turns into initializers (opening.py).
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from labkit.variant import Array

FUSED_ACTIVATIONS = ("Relu", "Clip")
"""Activation functions that engines compute within the layer before them."""


class Graph:
    """An index over `model.graph`; valid until nodes are added or removed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.producer.update({name: node for name in node.output})
            for name in read_by(node):
                self.consumers[name].append(node)
        self._made: dict[str, str] = {}

    def constant(self, name: str) -> Array | None:
        """The values of a constant, None if `name` is computed."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The node that uses `name`, if it is one alone and `name` is not an output of the model."""
        users = self.consumers[name]
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def behind_activation(self, name: str) -> str:
        """The tensor that is rounded instead of a layer's output `name`: behind the activation that is fused to it.

        `name` itself, if there is none.
        """
        user = self.only_consumer(name)
        return user.output[0] if user is not None and user.op_type in FUSED_ACTIVATIONS else name

    def new_name(self, wish: str) -> str:
        """The name that a new tensor gets: `wish`, with a number behind it where the graph has that name already.

        Whoever asks this index again gets the same answer, so a tensor can be spoken of before it is made.
        """
        if wish not in self._made:
            number = itertools.count(1)
            name = wish
            while name in self._taken:
                name = f"{wish}_{next(number)}"
            self._made[wish] = name
            self._taken.add(name)
        return self._made[wish]

    @functools.cached_property
    def _taken(self) -> set[str]:
        return set(_all_names(self.model.graph))


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or the default; a text comes as `str`."""
    value = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
    return value.decode() if isinstance(value, bytes) else value


def add_constant(model: onnx.ModelProto, name: str, values: Array) -> str:
    """Store `values` as an initializer; returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
    return name


def set_constant(model: onnx.ModelProto, name: str, values: Array) -> None:
    """Store other values under the name of an initializer that is there."""
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, order="C"), name))


def refill(field: Any, values: list[Any]) -> None:
    """Make `values` what a repeated field of a message holds."""
    del field[:]
    field.extend(values)


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes` the graph's nodes, and drop the constants that none of them uses."""
    nodes = list(nodes)
    used = {name for node in nodes for name in read_by(node)}
    used |= {value.name for value in model.graph.output}
    refill(model.graph.node, nodes)
    refill(model.graph.initializer, [t for t in model.graph.initializer if t.name in used])


def keep_used(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes`, in their order, the graph's nodes, without those that no output of the model depends on."""
    used = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(list(nodes)):
        if used & set(node.output):
            kept.append(node)
            used |= read_by(node)
    replace_nodes(model, reversed(kept))


def read_by(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node needs: its inputs, and what the graphs inside it use from outside."""
    return {*node.input, *_outer_names(node)}


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor's name, those inside the branches of an If or the body of a Loop included."""
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in inner_graphs(node):
            yield from _all_names(inner)


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node carries out as it sees fit: an If's branches, a Loop's body."""
    return [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]


def _outer_names(node: onnx.NodeProto) -> set[str]:
    """All names that the graphs inside a node (an If's branches, a Loop's body) use, some from outside."""
    graphs = inner_graphs(node)
    inner = [n for graph in graphs for n in graph.node]
    names = {value.name for graph in graphs for value in graph.output}
    return names.union(*({*n.input, *_outer_names(n)} for n in inner))
