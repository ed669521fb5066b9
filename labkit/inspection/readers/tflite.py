"""LiteRT (TensorFlow Lite): one flatbuffer with tensors, operators and the constants' bytes. No TensorFlow needed.

The fields' numbers are those of tensorflow/lite/schema/schema.fbs, version 3.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

from labkit.errors import ModelFileError
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.readers.flatbuffer import Table
from labkit.inspection.readers.tflite_operators import OPERATORS
from labkit.inspection.record import Inspection, Layer, Shape, TensorInfo
from labkit.inspection.request import Request
from labkit.inspection.storage import REAL, bytes_of, count_of, tally
from labkit.onnx_graph.wire import Bytes

T = TypeVar("T")
_NAMES = (
    "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant "
    "uint32 uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2"
)
_DTYPES = _NAMES.split()
_WEIGHTS = (*REAL, "int8", "uint8", "int4", "int2")
_CUSTOM = "CUSTOM"
_SUMMED = {"CONV_2D": (1, 4), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 2), "CONV_3D": (0, 4)}
"""Operator → the part of its weight's shape that each number sums over: [O, h, w, I], [1, h, w, O], [O, I]."""

_UNCOUNTED = (
    "LSTM",
    "RNN",
    "TRANSPOSE_CONV",
    "CONV_3D_TRANSPOSE",
    "SVDF",
    "IF",
    "WHILE",
    "STABLEHLO",
    "CALL",
    _CUSTOM,
)


def read(request: Request) -> Inspection:
    """What a .tflite file holds. Raises ModelFileError if it is truncated or points out of itself."""
    size = request.file.stat().st_size
    with open(request.file, "rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise ModelFileError("it is not a TensorFlow Lite model: its mark TFL3 is missing")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _inspection(data, request, size)


def _inspection(data: Bytes, request: Request, size: int) -> Inspection:
    model = Table(data, int.from_bytes(data[:4], "little"))
    graphs = model.tables(2)
    if not graphs:
        raise ModelFileError("it holds no graph")
    codes = [_operator(code) for code in model.tables(1)]
    held = [_held(buffer, size) for buffer in model.tables(4)]
    precision = tally(_stored(graphs, held))
    tables = graphs[0].tables(0)
    infos = [_info(table, index) for index, table in enumerate(tables)]
    constant = [_at(held, table.number(2, "<I")) > 0 for table in tables]
    inputs = tuple(_at(infos, index) for index in graphs[0].numbers(1))
    sample = Sample.of(inputs, request.sizes)
    operators = graphs[0].tables(3)
    layers = tuple(_layer(table, codes, infos, constant, sample) for table in operators)
    learnt = {index for table in operators for index in _learnt(table, codes, infos, constant)}
    notes = [f"it holds {len(graphs)} graphs; the layers are of the first"] if len(graphs) > 1 else []
    return Inspection(
        file=request.path,
        format="tflite",
        bytes=size,
        producer=model.text(3) or None,
        ir_version=model.number(0, "<I"),
        inputs=inputs,
        outputs=tuple(_at(infos, index) for index in graphs[0].numbers(2)),
        precision=precision,
        parameters=sum(count_of(infos[index].shape) for index in learnt),
        macs=total_macs(layers),
        operators=dict(Counter(layer.operator for layer in layers)),
        layers=layers,
        notes=(*notes, "verified: each constant holds as many bytes as it claims", *untold(layers)),
    )


def _layer(
    table: Table, codes: Sequence[str], infos: Sequence[TensorInfo], constant: Sequence[bool], sample: Sample
) -> Layer:
    operator = _at(codes, table.number(0, "<I"))
    inputs = [index for index in table.numbers(1) if index >= 0]  # -1 stands for an optional one
    outputs = [_at(infos, index) for index in table.numbers(2)]
    output = outputs[0] if outputs else None
    return Layer(
        name=output.name if output else operator,
        operator=operator,
        inputs=tuple(_at(infos, index).name for index in inputs if not _at(constant, index)),
        outputs=tuple(info.name for info in outputs),
        output_shape=output.shape if output else None,
        dtype=output.dtype if output else None,
        parameters=sum(count_of(infos[index].shape) for index in _learnt(table, codes, infos, constant)),
        macs=_macs(operator, table, [infos[index].shape for index in inputs], output, sample),
    )


def _macs(
    operator: str, table: Table, inputs: list[Shape | None], output: TensorInfo | None, sample: Sample
) -> int | None:
    if any(operator.startswith(word) or operator.endswith(word) for word in _UNCOUNTED):
        return None
    shape = output.shape if output else None
    if operator in _SUMMED and len(inputs) > 1:
        weight = inputs[1]
        return sample.macs(shape, None if weight is None else weight[slice(*_SUMMED[operator])])
    if operator == "BATCH_MATMUL" and inputs and inputs[0] is not None:
        options = table.table(4)
        turned = options is not None and options.number(0, "<B") > 0  # adj_x
        return sample.macs(shape, inputs[0][-2:-1] if turned else inputs[0][-1:])
    return 0


def _operator(code: Table) -> str:
    """An operator's name; files before version 3a keep its number in a byte of its own."""
    number = max(code.number(0, "<b"), code.number(3, "<i"))
    name = OPERATORS[number] if 0 <= number < len(OPERATORS) else f"OPERATOR_{number}"
    return f"{_CUSTOM}.{code.text(1)}" if name == _CUSTOM else name


def _held(buffer: Table, size: int) -> int:
    """Bytes in a buffer; a large one lies behind the flatbuffer, at an offset in the file."""
    offset, length = buffer.number(1, "<Q"), buffer.number(2, "<Q")
    if offset > 1:
        if offset + length > size:
            raise ModelFileError(f"a buffer claims bytes {offset} to {offset + length} of a file of {size}")
        return length
    return buffer.vector(0, 1)[1]


def _info(table: Table, index: int) -> TensorInfo:
    """A tensor's name, dtype and shape; shape_signature has -1 where a size may vary."""
    sizes = table.numbers(7) or table.numbers(0)
    shape = tuple(size if size >= 0 else None for size in sizes)
    return TensorInfo(table.text(3) or f"tensor {index}", _dtype(table), shape)


def _dtype(table: Table) -> str:
    number = table.number(1, "<b")
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"type {number}"


def _stored(graphs: Sequence[Table], held: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Dtype, elements and bytes of each constant; a buffer that several tensors share is counted once."""
    seen = set()
    for table in (each for graph in graphs for each in graph.tables(0)):
        buffer = table.number(2, "<I")
        size, dtype, sizes = _at(held, buffer), _dtype(table), table.numbers(0)
        if not size or buffer in seen:
            continue
        seen.add(buffer)
        count = math.prod(sizes)
        is_plain = dtype not in ("string", "resource", "variant") and table.table(6) is None  # 6: sparse
        if is_plain and (min(sizes, default=0) < 0 or size != bytes_of(dtype, count)):
            raise ModelFileError(
                f"tensor {table.text(3)[:80]!r} claims {count} of {dtype}, but holds {size} bytes"
            )
        yield dtype, count, size


def _learnt(
    table: Table, codes: Sequence[str], infos: Sequence[TensorInfo], constant: Sequence[bool]
) -> set[int]:
    """The constants of an operator that are weights or biases: no single numbers, shapes or indices."""
    integer_bias = _at(codes, table.number(0, "<I")) in _SUMMED
    return {
        index
        for index in table.numbers(1)
        if index >= 0 and _at(constant, index) and infos[index].shape
        if infos[index].dtype in _WEIGHTS or (integer_bias and infos[index].dtype in ("int32", "int64"))
    }


def _at(items: Sequence[T], index: int) -> T:
    if not 0 <= index < len(items):
        raise ModelFileError(f"it refers to item {index} of {len(items)}: the file is damaged")
    return items[index]
