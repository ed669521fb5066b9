"""safetensors: a header in JSON that names each tensor's dtype, shape and place, then their bytes. No graph."""

from __future__ import annotations

import json
import math
from typing import Any

from labkit.errors import ModelFileError
from labkit.files import check_safetensors_header
from labkit.inspection.record import Inspection, Layer
from labkit.inspection.request import Request
from labkit.inspection.storage import bytes_of, tally

_LONGEST_HEADER = 100_000_000  # the format's own limit
_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}


def read(request: Request) -> Inspection:
    """Each tensor as a layer. Raises ModelFileError if the tensors do not fill the file exactly, one by one."""
    size = request.file.stat().st_size
    with open(request.file, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > min(size, _LONGEST_HEADER):
            raise ModelFileError(
                "the safetensors file is truncated, or none: its header is longer than the file"
            )
        header = start + file.read(length)
    check_safetensors_header(header)
    tensors: dict[str, Any] = json.loads(header[8:])
    metadata = tensors.pop("__metadata__", {})
    _check_places(tensors, size - 8 - length)
    found: list[tuple[str, int, int]] = []
    layers = []
    for name, item in tensors.items():
        dtype, count = _DTYPES.get(item["dtype"], item["dtype"]), math.prod(item["shape"])
        found.append((dtype, count, item["data_offsets"][1] - item["data_offsets"][0]))
        layers.append(Layer(name, "tensor", (), (), tuple(item["shape"]), dtype, count))
    return Inspection(
        file=request.path,
        format="safetensors",
        bytes=size,
        producer=metadata.get("format"),
        precision=tally(found),
        parameters=sum(count for _, count, _ in found),
        layers=tuple(layers),
        notes=(
            "verified: the tensors fill the file exactly, and each holds as many bytes as it claims",
            "the file holds tensors and no graph: no operators, no multiply-adds",
        ),
    )


def _check_places(tensors: dict[str, Any], data_bytes: int) -> None:
    """Raise ModelFileError unless the tensors lie one behind the other, as long as dtype and shape say."""
    position = 0
    for name, item in sorted(tensors.items(), key=lambda pair: pair[1]["data_offsets"]):
        begin, end = item["data_offsets"]
        if any(not isinstance(each, int) or each < 0 for each in (begin, end, *item["shape"])):
            raise ModelFileError(f"tensor {name!r} has a shape or place that is no whole number from 0")
        if begin != position:
            raise ModelFileError(
                f"tensor {name!r} begins at byte {begin}, but the one before ends at {position}"
            )
        kind = item["dtype"]
        if kind in _DTYPES and end - begin != bytes_of(_DTYPES[kind], math.prod(item["shape"])):
            raise ModelFileError(
                f"tensor {name!r} claims {item['shape']} of {kind}, but holds {end - begin} bytes"
            )
        position = end
    if position != data_bytes:
        raise ModelFileError(f"the tensors end at byte {position}, the file's data at {data_bytes}")
