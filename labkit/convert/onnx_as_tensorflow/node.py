"""What every operator's translation is written with: its node, its layout, and values that may be known already.

A value is one of three things, and most translations need not care which:
- a numpy array, when the values are known now (weights, the axes of a Squeeze);
- a numpy array of objects, when it is a shape of which only some sizes are known: the others are TensorFlow
  scalars, so the shape of a free batch of 8 numbers is `[<tf.Tensor>, 8]` and numpy can slice and join it;
- a `tf.Tensor`, when it is computed while the model runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from labkit.errors import TechniqueError

tf: Any = importlib.import_module("tensorflow")  # it ships no types
Value = Any  # one of the three above

DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    + ["bfloat16", "float16", "float32", "float64"]
)


@dataclass(frozen=True)
class Operator:
    """How one ONNX operator is said in TensorFlow.

    `apply(node, *inputs)` gives the output, or a tuple of them; an input left out is None. `layout` says in
    which order of axes it wants them:
    - "onnx": as ONNX has them;
    - "last": the first input with its channels last, as TensorFlow's convolutions want it;
    - "first": as the first input happens to be; `node.axis` tells where an axis of ONNX's is then;
    - "all": as its inputs happen to be, constants being brought into the same order.
    """

    apply: Callable[..., Any]
    layout: str = "onnx"


class Node:
    """One node of the graph: its attributes, and the layout of what it was given.

    `channels_last` is True if the inputs came channels-last; the output is taken to be in the same layout,
    unless the translation sets it to False.
    """

    def __init__(self, proto: onnx.NodeProto, opset: int) -> None:
        self.kind, self.opset = proto.op_type, opset
        self.name = proto.name or next(name for name in proto.output if name)
        self.wanted = [bool(name) for name in proto.output]
        self.channels_last = False
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def axis(self, axis: int, rank: int) -> int:
        """Where ONNX's `axis` (which may count from the end) of a tensor of `rank` lies in the present layout."""
        axis = int(axis) % max(rank, 1)
        if not self.channels_last or axis == 0:
            return axis
        return rank - 1 if axis == 1 else axis - 1

    def refuse(self, why: str) -> TechniqueError:
        """The error for what this translation does not do."""
        return TechniqueError(
            f"{self.kind} (node {self.name!r}, opset {self.opset}) cannot be said in TensorFlow: {why}"
        )

    def known(self, value: Value, what: str) -> Any:
        """`value`, if it is a constant. Raises TechniqueError if it is computed while the model runs."""
        if value is not None and not is_known(value):
            raise self.refuse(f"its {what} must be constant: export the model with it fixed")
        return value

    def dtype(self, data_type: int) -> np.dtype[Any]:
        """ONNX's number for a type → numpy's type. Raises TechniqueError if TensorFlow cannot compute with it."""
        name = onnx.TensorProto.DataType.Name(data_type)
        return self.checked(onnx.helper.tensor_dtype_to_np_dtype(data_type), name.lower())

    def checked(self, dtype: np.dtype[Any], name: str = "") -> np.dtype[Any]:
        """`dtype`, if TensorFlow can compute with it. Raises TechniqueError if not."""
        if dtype.name not in DTYPES:
            raise self.refuse(f"it holds {name or dtype.name}: use float32, float16 or an integer type")
        return dtype


def is_known(value: Value) -> bool:
    """Whether the values are known now, all of them."""
    return isinstance(value, np.ndarray) and value.dtype != object


def library(value: Value) -> Any:
    """Numpy for what is known or partly known, TensorFlow for the rest: most names are the same in both."""
    return np if isinstance(value, np.ndarray) else tf


def tensor(value: Value) -> Any:
    """Any value as a tensor; a partly known shape is put together out of its sizes."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        sizes = [tf.cast(size, tf.int64) for size in value.reshape(-1)]
        return tf.reshape(tf.stack(sizes), value.shape)
    return tf.convert_to_tensor(value)


def boxed(value: Any) -> Value:
    """An array as it is; a single size, which numpy takes out of its array unasked, put back into one."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    box = np.empty((), object)
    box[()] = value
    return box


def sizes(x: Value) -> list[Any]:
    """The shape of x: an int where the size is known, a TensorFlow scalar (int32) where it is not."""
    known = x.shape if isinstance(x, np.ndarray) else x.shape.as_list()
    if None not in known:
        return list(known)
    running = tf.shape(x)
    return [running[axis] if size is None else size for axis, size in enumerate(known)]


def rank(x: Value) -> int:
    """The number of axes, always known."""
    return len(x.shape)


def to_channels_last(rank: int) -> list[int]:
    """The permutation NC… → N…C; its own place for each axis if there are fewer than three."""
    return [0, *range(2, rank), 1] if rank > 2 else list(range(rank))


def to_onnx(rank: int) -> list[int]:
    """The permutation N…C → NC…."""
    return [0, rank - 1, *range(1, rank - 1)] if rank > 2 else list(range(rank))


def along(axis: int, rank: int, values: Value) -> Value:
    """A vector of values as a tensor of `rank` axes, which lies along one of them."""
    return library(values).reshape(values, [-1 if each == axis else 1 for each in range(rank)])


def as_ints(values: Value | Sequence[int]) -> list[int]:
    """A constant vector as Python's own integers."""
    return [int(value) for value in np.asarray(values).reshape(-1)]
