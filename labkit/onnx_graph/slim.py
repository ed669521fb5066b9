"""An ONNX file without its weights: a 2 GB model costs a few megabytes to look at.

Nearly all of an ONNX file is the `raw_data` of its tensors. `wire.py` tells how a protobuf message can be walked
through without being parsed; here that walk goes down the few paths on which a tensor can lie,

    model → graph → node → attribute → tensor, or again a graph → …
                  → initializer (a tensor), sparse_initializer (two tensors)

and copies everything but the data of large tensors. What was left out is compared with what the tensor claims
(dims × bits) on the way; the small tensors, such as shapes and scales, stay, and are checked when parsed. The
copy is a normal model: the checker and the shape inference take it.
"""

from __future__ import annotations

import mmap
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from onnx import TensorProto

from labkit.errors import ModelFileError
from labkit.onnx_graph.stored import check_stored, constants, elements, graphs, held, is_external
from labkit.onnx_graph.wire import LENGTH, Bytes, Field, count_varints, encode_field, fields

T = TypeVar("T", onnx.ModelProto, TensorProto)
SMALL_BYTES = 1024
"""A message of at most so many bytes is copied whole."""

_MOST_COPIED_BYTES = 64 * 1024 * 1024
_DEEPEST = 64  # an If in an If in an If …: each graph within another takes three steps

MESSAGES = {
    "ModelProto": {"graph": 7, "training_info": 20, "functions": 25},
    "TrainingInfoProto": {"initialization": 1, "algorithm": 2},
    "FunctionProto": {"node": 7, "attribute_proto": 11},
    "GraphProto": {"node": 1, "initializer": 5, "sparse_initializer": 15},
    "NodeProto": {"attribute": 5},
    "AttributeProto": {
        "t": 5,
        "g": 6,
        "tensors": 10,
        "graphs": 11,
        "sparse_tensor": 22,
        "sparse_tensors": 23,
    },
    "SparseTensorProto": {"values": 1, "indices": 2},
}
"""Message → its fields on the way to a tensor, and their numbers in onnx.proto."""

DATA = {
    "float_data": 4,
    "int32_data": 5,
    "int64_data": 7,
    "raw_data": 9,
    "double_data": 10,
    "uint64_data": 11,
}
"""The fields of a TensorProto that are left out; texts stay."""

_INTO = {
    (message, number): onnx.__dict__[message].DESCRIPTOR.fields_by_name[name].message_type.name
    for message, numbers in MESSAGES.items()
    for name, number in numbers.items()
}
_DATA_NAMES = {number: name for name, number in DATA.items()}
_NUMBER_BYTES = {"float_data": 4, "double_data": 8}


@dataclass(frozen=True)
class Slim:
    """A model without the data of its large tensors; `left_out_bytes` is what they take in the file."""

    model: onnx.ModelProto
    left_out_bytes: int


def read_slim(path: Path) -> Slim:
    """Walk through the file; ModelFileError if it is truncated, no ONNX, or its tensors are not what they claim."""
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ModelFileError("the file is empty") from None
        with data:
            return slim(data)


def slim(data: Bytes) -> Slim:
    """The same, of bytes."""
    walk = _Walk(data)
    copy = walk.message("ModelProto", 0, len(data), 0)
    model = _parse(onnx.ModelProto, copy)
    for graph in graphs(model):
        for tensor in constants(graph):
            if tensor.raw_data == walk.token:
                tensor.ClearField("raw_data")
            else:
                check_stored(tensor, held(tensor))
    return Slim(model, walk.left_out_bytes)


def is_left_out(tensor: TensorProto) -> bool:
    """Whether a checked tensor of a slim model has its data elsewhere: left out here, or in another file."""
    return is_external(tensor) or (elements(tensor) > 0 and not held(tensor))


def _parse(kind: type[T], data: bytes) -> T:
    try:
        message: T = kind.FromString(data)
    except Exception:  # protobuf has no error of its own that all its versions share
        raise ModelFileError("it is not an ONNX file, or only a part of one") from None
    return message


class _Walk:
    """One walk over `data`. Where data were left out, `token`, which no file can guess, stands in their place."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.token = secrets.token_bytes(16)
        self.left_out_bytes = 0
        self._copied_bytes = 0

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes:
        """A copy of the message in data[start:end], without the data of large tensors in it."""
        if depth > _DEEPEST:
            raise ModelFileError(f"graphs lie within graphs more than {_DEEPEST // 3} deep")
        if kind == "TensorProto":
            return self._tensor(start, end)
        pieces: list[bytes] = []
        copied = start
        for field in fields(self.data, start, end):
            inner = _INTO.get((kind, field.number)) if field.kind == LENGTH else None
            if inner is None or field.end - field.begin <= SMALL_BYTES:
                continue
            pieces.append(self._copy(copied, field.start))
            pieces.append(encode_field(field.number, self.message(inner, field.begin, field.end, depth + 1)))
            copied = field.end
        return b"".join([*pieces, self._copy(copied, end)])

    def _tensor(self, start: int, end: int) -> bytes:
        """A large tensor: what it is called and claims, and the token if data were left out."""
        kept: list[bytes] = []
        found: dict[str, int] = {}
        for field in fields(self.data, start, end):
            name = _DATA_NAMES.get(field.number)
            if name is None:
                kept.append(self._copy(field.start, field.end))
            else:
                before = (
                    0 if name == "raw_data" else found.get(name, 0)
                )  # of two raw_data the last one counts
                found[name] = before + self._amount(name, field)
                self.left_out_bytes += field.end - field.begin
        tensor = _parse(TensorProto, b"".join(kept))
        check_stored(tensor, found | held(tensor))
        return b"".join([*kept, encode_field(DATA["raw_data"], self.token)] if found else kept)

    def _amount(self, name: str, field: Field) -> int:
        """How many numbers a data field holds; of raw_data, how many bytes."""
        length = field.end - field.begin
        if name == "raw_data":
            return length
        if field.kind != LENGTH:  # not packed: one number, with a tag of its own
            return 1
        if name not in _NUMBER_BYTES:
            return count_varints(self.data, field.begin, field.end)
        return length // _NUMBER_BYTES[name]

    def _copy(self, start: int, end: int) -> bytes:
        self._copied_bytes += end - start
        if self._copied_bytes > _MOST_COPIED_BYTES:
            raise ModelFileError(f"it holds more than {_MOST_COPIED_BYTES >> 20} MiB beside its weights")
        return self.data[start:end]
