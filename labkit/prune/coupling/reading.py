"""What every rule is written with: the graph as it is read, and the changes that a cut will ask of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from labkit.onnx_graph import Graph, read_by
from labkit.onnx_graph import attribute as attribute_of
from labkit.prune.coupling.axis import Axes, Axis, Ledger, Numbers
from labkit.prune.coupling.sizes import Sizes
from labkit.variant import Array

Kept = Callable[[Numbers], Array]
"""numbers [n] → which of them stay: [n], bool."""
Write = Callable[[Array], str]
"""Store a constant in the graph that is cut; returns its name."""
Edit = Callable[[onnx.NodeProto, Kept, Write], None]
"""What a node needs once its tensors are shorter: other attributes, other constants."""


_NORMS = ("BatchNormalization", "InstanceNormalization")
_BY_ITSELF = (
    "Add",
    "AveragePool",
    "Clip",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Relu",
    "Sub",
    "Transpose",
)


class Unruled(Exception):
    """Why no rule covers a node."""


class Reading:
    """A graph whose nodes are read in order; a rule sees the node at `index` and the tensors before it.

    `widths`: for nodes that are told how long to make axes, such as a Split, these axes.
    `wanted`, `unwanted`: what an earlier reading has found about the (Reshape, output axis) that may shrink.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Sizes,
        wanted: frozenset[tuple[int, int]],
        unwanted: frozenset[tuple[int, int]],
    ) -> None:
        self.graph, self._sizes = graph, sizes
        self.wanted, self.unwanted = wanted, unwanted
        self.ledger = Ledger()
        self.edits: dict[int, Edit] = {}
        self.widths: dict[int, Axes] = {}
        self.index = -1
        self.node = onnx.NodeProto()
        self._axes: dict[str, Axes] = {}
        self._varying = {value.name for value in graph.model.graph.input}
        for node in graph.nodes:
            if self._varying & read_by(node):
                self._varying.update(node.output)

    def title(self) -> str:
        """The node as a person would look for it."""
        return f"{self.node.op_type} {self.node.name or self.node.output[0]!r}"

    def axes(self, name: str) -> Axes:
        """The axes of a tensor that the node reads."""
        if name not in self._axes:
            if name not in self.graph.constants:
                raise Unruled(f"the shape of {name!r} is not known")
            self._axes[name] = self.ledger.constant(name, self.graph.constants[name].dims)
        return self._axes[name]

    def store(self, name: str, axes: Axes) -> None:
        """Note the axes of a tensor that the node writes."""
        self._axes[name] = axes

    def input(self, position: int) -> Axes:
        """The axes of the node's input at `position`; Unruled if there is none."""
        if not self.has(position):
            raise Unruled(f"{self.title()} lacks its input {position}")
        return self.axes(self.node.input[position])

    def has(self, position: int) -> bool:
        """Whether the node is given that input; optional ones may be left out."""
        return len(self.node.input) > position and bool(self.node.input[position])

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of the node's attribute, or the default."""
        return attribute_of(self.node, name, default)

    def constant(self, position: int) -> Array | None:
        """The values of the input at `position`, None if they may vary or it is left out."""
        name = self.node.input[position] if self.has(position) else ""
        values = self.graph.constant(name)
        return self._sizes.settled.get(name) if values is None else values

    def is_computed(self, position: int) -> bool:
        """Whether the input at `position` is no constant, nor a constant that was only turned over."""
        name, axes = self.node.input[position], self.input(position)
        return name not in self.graph.constants and all(axis.source is None for axis in axes)

    def varies(self, position: int) -> bool:
        """Whether the input at `position` depends on the model's inputs, and not on stored numbers alone."""
        return self.node.input[position] in self._varying

    def sizes(self, name: str) -> tuple[int, ...]:
        """The sizes of a tensor; Unruled where they are not known."""
        if name not in self._sizes.known:
            raise Unruled(f"the shape of {name!r} is not known")
        return self._sizes.known[name]

    def free(self, name: str) -> tuple[int, ...]:
        """The axes of a tensor whose sizes depend on how many samples there are."""
        return self._sizes.free.get(name, ())

    def whole(self, name: str, why: str) -> Axes:
        """Axes for the tensor `name` that all stay as long as they are."""
        return tuple(Axis(size, why=why) for size in self.sizes(name))

    def makes(self, axis: Axis) -> None:
        """Note that the initializer behind an axis makes its channels, and what they meet first."""
        self.ledger.play("makes", axis)
        if axis.source is not None and not self._meets_norms(self.node.output[0]):
            self.ledger.unnormed.add(axis.source)

    def reads(self, *axes: Axis) -> None:
        """Note that channels are summed over: those that all of `axes`, tied to each other, are."""
        for axis in axes:
            self.ledger.play("reads", axis)
        for axis in axes if all(axis.source is None for axis in axes) else ():
            if axis.numbers is not None:
                self.ledger.unweighted.append(axis.numbers)

    def _meets_norms(self, name: str) -> bool:
        """Whether all that reads the tensor is a norm of channels, or leaves each by itself and then meets one."""
        readers = self.graph.consumers[name]
        return bool(readers) and all(
            each.op_type in _NORMS
            or (
                each.op_type in _BY_ITSELF
                and len(self._varying & read_by(each)) == 1
                and self._meets_norms(each.output[0])
            )
            for each in readers
        )

    def when_cut(self, edit: Edit) -> None:
        """Have the node changed by `edit` whenever the graph is cut."""
        self.edits[self.index] = edit


def concerned(axes: Sequence[Axis], kept: Kept) -> bool:
    """Whether a cut makes any of the axes shorter."""
    return any(axis.numbers is not None and not kept(axis.numbers).all() for axis in axes)


def left(axis: Axis, kept: Kept) -> int:
    """How long an axis is after the cut."""
    return axis.size if axis.numbers is None else int(kept(axis.numbers).sum())
