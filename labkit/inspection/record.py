"""What an inspection finds, in one form for every format: it goes through JSON and comes back the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int | str | None, ...]
"""Sizes; a str is a named dimension that may vary, None one that varies and has no name."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: dtype is NumPy's name, shape None where even the rank is open."""

    name: str
    dtype: str | None
    shape: Shape | None

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Its dimensions that may vary: by name, or as "axis 2"."""
        sizes = enumerate(self.shape or ())
        return tuple(size or f"axis {axis}" for axis, size in sizes if not isinstance(size, int))


@dataclass(frozen=True)
class Layer:
    """One operator. `inputs` and `outputs` are names of tensors, constants left out: they join the layers.

    `output_shape` and `dtype` are of the first output, None where unknown; `parameters` counts the learnt
    numbers that it reads; `macs` are multiply-adds of one sample, None where the rule does not tell.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_shape: Shape | None = None
    dtype: str | None = None
    parameters: int | None = 0
    macs: int | None = None


@dataclass(frozen=True)
class Stored:
    """The constants of one dtype: how many numbers, in how many bytes."""

    count: int
    bytes: int


@dataclass(frozen=True)
class ExternalFile:
    """A file that belongs to the model: `checksum` is "verified", "not verified" or "none recorded"."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Inspection:
    """A model file, looked into.

    `precision` maps each dtype to its constants (empty where the format does not tell), `parameters` counts those
    that are learnt, `macs` the multiply-adds of one sample; both None where they cannot be told. `notes` say what
    was verified, what was not, and why a figure is missing.
    """

    file: str
    format: str
    bytes: int
    producer: str | None = None
    ir_version: int | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    precision: Mapping[str, Stored] = field(default_factory=dict)
    parameters: int | None = None
    macs: int | None = None
    external_files: tuple[ExternalFile, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dynamic(self) -> dict[str, tuple[str, ...]]:
        """Each input or output that has dimensions which may vary, and these."""
        return {each.name: each.dynamic for each in (*self.inputs, *self.outputs) if each.dynamic}

    def to_json(self) -> dict[str, Any]:
        """Plain data, `dynamic` included."""
        return {**dataclasses.asdict(self), "dynamic": self.dynamic}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Inspection:
        """The same record from plain data."""
        known: dict[str, Any] = {each.name: document[each.name] for each in dataclasses.fields(cls)}
        return cls(
            **known
            | {
                "inputs": tuple(_read(TensorInfo, item) for item in known["inputs"]),
                "outputs": tuple(_read(TensorInfo, item) for item in known["outputs"]),
                "precision": {dtype: Stored(**item) for dtype, item in known["precision"].items()},
                "external_files": tuple(ExternalFile(**item) for item in known["external_files"]),
                "layers": tuple(_read(Layer, item) for item in known["layers"]),
                "notes": tuple(known["notes"]),
            }
        )

    def _repr_html_(self) -> str:
        """In a notebook: the drawing, and the table beside it."""
        from labkit.inspection.table import notebook_html

        return notebook_html(self)


def _read(kind: Any, item: Mapping[str, Any]) -> Any:
    """A TensorInfo or a Layer: JSON's lists become tuples again."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in item.items()})
