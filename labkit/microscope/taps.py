"""Taps: every tensor that a model computes on its way from input to output, whatever its format.

A model is a graph of operators, and between any two of them a tensor flows that nobody normally sees. Each
format has its own way of letting one look: PyTorch's exported graph is interpreted node by node; in ONNX and
OpenVINO each tensor is declared an output of the model; LiteRT is told to keep what it would overwrite. What
comes out is the same everywhere: a list of `Tap`s in the order of computation.

Operators that depend on no input (stored weights, and what is computed from those alone) are left out:
formats differ in what they compute once beforehand, and it says nothing about the samples.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import TechniqueError, nearest
from labkit.variant import Array, Variant

INPUT = "Input"
"""The operator of a tap that is one of the model's inputs."""

_SHAPE_ONLY = {"Shape", "ShapeOf", "Size", "SHAPE", "sym_size"}  # what they give depends on no value

_READERS = {
    "torch": "taps_torch",
    "pt2": "taps_torch",
    "onnx": "taps_onnx",
    "openvino": "taps_openvino",
    "tflite": "taps_litert",
}


@dataclass(frozen=True)
class Operator:
    """An operator, and the tensor `name` that it computes.

    `operator` is its kind in its format's own words ("Conv", "conv2d"), `node` its name in the file, `layer` a
    name that a person knows: a module's path, where there is one.
    """

    name: str
    operator: str
    node: str
    layer: str

    @property
    def title(self) -> str:
        """Conv 'blocks.3.conv1' (node_Conv_315)."""
        layer = self.layer or self.node
        return f"{self.operator} {layer!r}" + (f" ({self.node})" if self.node != layer else "")


@dataclass(frozen=True, eq=False)
class Tap(Operator):
    """One computed tensor: `value`, the names `inputs` of the taps that it was computed from, and `settings`.

    Settings are the operator's attributes and stored parameters in its format's own words: two taps of one
    format can be compared by them.
    """

    inputs: tuple[str, ...]
    value: Array
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> Operator:
        """The operator alone, without its numbers."""
        return Operator(self.name, self.operator, self.node, self.layer)


def taps(variant: Variant, feeds: Mapping[str, Array]) -> list[Tap]:
    """Run `variant` once on `feeds` (input name → [N, …]) and return its taps in topological order.

    Everything is kept in memory: N times the sum of all activations. Float arithmetic is float32 on one
    thread with no operators fused. Raises TechniqueError for a format that cannot be looked into.
    """
    if variant.format not in _READERS:
        raise TechniqueError(
            f"{variant.name!r} is {variant.format!r}, which the microscope cannot look into; "
            f"{nearest(variant.format, _READERS)}"
        )
    variant.check_feeds(feeds)
    reader = importlib.import_module(f"labkit.microscope.{_READERS[variant.format]}")
    kept: dict[str, Tap] = {}
    for tap in reader.read(variant, feeds):
        inputs = tuple(name for name in tap.inputs if name in kept)
        if tap.operator == INPUT or (inputs and tap.operator not in _SHAPE_ONLY):
            kept[tap.name] = dataclasses.replace(tap, inputs=inputs)
    return list(kept.values())
