"""What a tensor claims to hold, what it does hold, and where: checked before anybody allocates by the claim.

`dims` × the element's bits is the claim. The data stand in `raw_data`, or number by number in a field of their
type, or in a file of their own, which `external_data` names: location, offset, length, and perhaps the SHA-1 of
the whole file, which no runtime verifies. A file from outside may name any path there: only a plain file within
the model's own folder is followed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from onnx import TensorProto

from labkit.errors import ModelFileError
from labkit.onnx_graph.graph import inner_graphs

LARGEST_DIMENSION = 2**31 - 1
TYPED_DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class External:
    """The part of another file that holds a tensor's data; `checksum` is the whole file's SHA-1, or None."""

    path: Path
    offset: int
    length: int
    checksum: str | None


def bits(data_type: int) -> int:
    """Bits of one element as it is stored: the 4- and 2-bit types are packed. A text counts as none."""
    name = TensorProto.DataType.Name(data_type)
    if name == "STRING":
        return 0
    if name.endswith(("INT2", "INT4", "FLOAT4E2M1")):
        return 2 if name.endswith("2") else 4
    return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8


def dtype_name(data_type: int) -> str:
    """NumPy's name of a type: float32, int8, bfloat16, int4, string."""
    if data_type == TensorProto.STRING:
        return "string"
    return str(onnx.helper.tensor_dtype_to_np_dtype(data_type))


def elements(tensor: TensorProto) -> int:
    """The product of the dims; 1 for a single number."""
    return math.prod(tensor.dims)


def claimed_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor of its dims and type takes; those of texts are counted one by one."""
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return (elements(tensor) * bits(tensor.data_type) + 7) // 8


def is_external(tensor: TensorProto) -> bool:
    """Whether its data stand in another file."""
    return bool(tensor.external_data) or tensor.data_location == TensorProto.EXTERNAL


def held(tensor: TensorProto) -> dict[str, int]:
    """Field → bytes of its `raw_data`, numbers of a typed field."""
    found = {name: len(getattr(tensor, name)) for name in TYPED_DATA if getattr(tensor, name)}
    return found | ({"raw_data": len(tensor.raw_data)} if tensor.HasField("raw_data") else {})


def check_stored(tensor: TensorProto, found: Mapping[str, int]) -> None:
    """Raise ModelFileError unless the data that were `found` are exactly what dims and type claim."""
    name = repr(tensor.name[:80])
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise ModelFileError(f"tensor {name} is of type {tensor.data_type}, which this onnx does not know")
    for size in tensor.dims:
        if not 0 <= size <= LARGEST_DIMENSION:
            raise ModelFileError(f"tensor {name} has a dimension of {size}")
    if is_external(tensor):
        return
    if len(found) > 1:
        raise ModelFileError(f"tensor {name} holds its data twice, in {' and '.join(sorted(found))}")
    place, amount = next(iter(found.items()), ("raw_data", 0))
    expected = claimed_bytes(tensor) if place == "raw_data" else _typed_elements(tensor)
    if amount != expected and not (not found and elements(tensor) == 0):
        unit = "bytes" if place == "raw_data" else "numbers"
        raise ModelFileError(
            f"tensor {name} claims {elements(tensor)} elements, {expected} {unit}, but holds {amount}"
        )


def _typed_elements(tensor: TensorProto) -> int:
    """How many numbers of its typed field stand for all elements: a complex one takes two, packed ones share."""
    kind = TensorProto.DataType.Name(tensor.data_type)
    if kind.startswith("COMPLEX"):
        return 2 * elements(tensor)
    packed = max(1, 8 // (bits(tensor.data_type) or 8))
    return -(-elements(tensor) // packed)


def graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, the functions, those of the training, and every graph inside a node of theirs."""
    yield from run_graphs(model)
    for training in model.training_info:
        yield from (*within(training.initialization), *within(training.algorithm))


def run_graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """Those that a run may go through: the graph, the functions, and every graph inside a node of theirs."""
    for graph in (model.graph, *model.functions):
        yield from within(graph)


def within(*graphs: Any) -> Iterator[Any]:
    """The graphs or functions, and every graph inside a node of theirs (the branches of If, the body of Loop)."""
    waiting = [*graphs]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting += inner_graphs(node)


def constants(graph: Any) -> Iterator[TensorProto]:
    """Every tensor that a graph or function holds itself: initializers, attributes, sparse ones."""
    yield from getattr(graph, "initializer", ())
    sparse = [*getattr(graph, "sparse_initializer", ())]
    for attribute in (*getattr(graph, "attribute_proto", ()), *(a for n in graph.node for a in n.attribute)):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += attribute.sparse_tensors
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def find_external(tensor: TensorProto, folder: Path) -> External:
    """Where a tensor's data stand outside the model; ModelFileError unless a plain file in `folder` holds them all."""
    name = repr(tensor.name[:80])
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", claimed_bytes(tensor)))
    except ValueError:
        raise ModelFileError(f"tensor {name}: offset or length of its external data is no number") from None
    path = _inside(folder, location, name)
    size = path.stat().st_size
    if not 0 <= offset <= offset + length <= size:
        raise ModelFileError(
            f"tensor {name} claims bytes {offset} to {offset + length} of {location!r}, which has {size}"
        )
    if length != claimed_bytes(tensor):
        raise ModelFileError(
            f"tensor {name} claims {claimed_bytes(tensor)} bytes, but its external data are {length}"
        )
    return External(path, offset, length, entries.get("checksum"))


def _inside(folder: Path, location: str, name: str) -> Path:
    """The plain file that `location` names within `folder`, reached over no link."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    if not location or "\0" in location or location.startswith("/") or windows.drive or windows.root:
        raise ModelFileError(f"tensor {name} keeps its data in {location!r}: refused, not a relative path")
    if ".." in parts or ".." in windows.parts:
        raise ModelFileError(f"tensor {name} keeps its data in {location!r}: refused, it leaves the folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ModelFileError(f"tensor {name} keeps its data in {location!r}: refused, {part!r} is a link")
    if not path.is_file():
        raise ModelFileError(f"tensor {name} keeps its data in {location!r}, which is not there: copy it too")
    return path


def sha1_of(path: Path) -> str:
    """The SHA-1 of a file in hexadecimal, read piece by piece."""
    digest = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
