"""What every operator is written with: one node of the graph, as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from labkit.errors import TechniqueError
from labkit.variant import Array


class Node:
    """One node: what it does, the tensors that it reads ("" where one is left out) and writes, its attributes."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        self.op_type = proto.op_type
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self.name = proto.name or next((name for name in proto.output if name), "")
        self.training = False
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default; a tensor comes as an array, a text as `str`."""
        value = self._attributes.get(name, default)
        if isinstance(value, onnx.TensorProto):
            return numpy_helper.to_array(value)
        return value.decode() if isinstance(value, bytes) else value

    def refuse(self, why: str) -> TechniqueError:
        """The error for what is not done here."""
        return TechniqueError(f"{self.op_type} (node {self.name!r}) cannot be computed in PyTorch: {why}")

    def dtype(self, data_type: int) -> torch.dtype:
        """ONNX's number for a type → torch's type. Raises TechniqueError if there is none."""
        return to_tensor(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(data_type)), self.name).dtype


def to_tensor(values: Array, name: str) -> torch.Tensor:
    """A copy of an array that torch may write to; TechniqueError if torch has no such numbers."""
    try:
        return torch.from_numpy(values.copy())
    except TypeError:
        raise TechniqueError(f"{name!r} holds {values.dtype}, which PyTorch cannot compute with") from None


def ints(values: torch.Tensor) -> list[int]:
    """A tensor of whole numbers as Python's own."""
    return [int(value) for value in values.reshape(-1).tolist()]
