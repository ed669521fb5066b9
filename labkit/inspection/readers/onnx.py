"""ONNX: read without its weights, checked, shapes inferred, and counted by the rule of `labkit.measure`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from labkit.errors import ModelFileError
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.record import ExternalFile, Inspection, Layer, Shape, TensorInfo
from labkit.inspection.request import Request
from labkit.inspection.storage import tally
from labkit.onnx_graph.graph import inner_graphs, read_by
from labkit.onnx_graph.macs import Uncounted, dims_of, infer_dims, learnt_tensors, node_macs, value_dims
from labkit.onnx_graph.slim import is_left_out, read_slim
from labkit.onnx_graph.stored import (
    claimed_bytes,
    constants,
    dtype_name,
    elements,
    find_external,
    graphs,
    is_external,
    run_graphs,
    sha1_of,
    within,
)

_VERIFIED_UNASKED_BYTES = 16_000_000


def read(request: Request) -> Inspection:
    """What an ONNX file holds. Raises ModelFileError if it, or a file that it points to, is not what it claims."""
    slim = read_slim(request.file)
    model = slim.model
    if not model.ir_version or not model.graph.node:
        raise ModelFileError("it is not an ONNX file, or it holds no operators")
    notes = [_check(model)]
    external, external_notes = _external_files(model, request)
    shapes, dtypes = _shapes(model)
    layers, reason = _layers(model, shapes, dtypes, request.sizes)
    return Inspection(
        file=request.path,
        format="onnx",
        bytes=request.file.stat().st_size,
        producer=f"{model.producer_name} {model.producer_version}".strip() or None,
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        inputs=_infos(_fed(model.graph)),
        outputs=_infos(model.graph.output, shapes),
        precision=tally(
            (dtype_name(tensor.data_type), elements(tensor), claimed_bytes(tensor))
            for graph in graphs(model)
            for tensor in constants(graph)
        ),
        parameters=_parameters(run_graphs(model)),
        macs=total_macs(layers),
        external_files=external,
        operators=dict(Counter(_operator(node) for graph in graphs(model) for node in graph.node)),
        layers=layers,
        notes=(*notes, *external_notes, *untold(layers, reason)),
    )


def _check(model: onnx.ModelProto) -> str:
    """Run ONNX's checker, with an empty tensor in the place of each whose data were left out."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for graph in graphs(copy):
        for tensor in constants(graph):
            if is_left_out(tensor):
                tensor.dims[:] = [0]
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
    try:
        onnx.checker.check_model(copy)
    except Exception as error:
        raise ModelFileError(f"it is not valid ONNX: {' '.join(str(error).split())[:250]}") from None
    return "verified: ONNX's checker accepts the graph, and each tensor holds as many bytes as it claims"


def _external_files(
    model: onnx.ModelProto, request: Request
) -> tuple[tuple[ExternalFile, ...], tuple[str, ...]]:
    """Each file beside the model that holds data, and what was (not) verified about it."""
    checksums: dict[Path, str | None] = {}
    for graph in graphs(model):
        for tensor in constants(graph):
            if is_external(tensor):
                part = find_external(tensor, request.file.absolute().parent)
                checksums[part.path] = part.checksum or checksums.get(part.path)
    files = []
    for path, checksum in checksums.items():
        size = path.stat().st_size
        verify = request.verify_data or size <= _VERIFIED_UNASKED_BYTES
        if checksum and verify and sha1_of(path) != checksum.lower():
            raise ModelFileError(f"{path.name!r} is not the file that was saved with it: its SHA-1 differs")
        state = "none recorded" if not checksum else "verified" if verify else "not verified"
        files.append(ExternalFile(path.name, size, state))
    skipped = [file.name for file in files if file.checksum == "not verified"]
    notes = [f"not verified: the checksum of {name!r}; pass --verify-data" for name in skipped]
    return tuple(files), tuple(notes)


def _shapes(model: onnx.ModelProto) -> tuple[dict[str, Shape], dict[str, str]]:
    """Every tensor's dims, names kept, and its dtype; without inference where that fails."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:
        graph = model.graph
    dtypes = {
        value.name: dtype_name(value.type.tensor_type.elem_type)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type
    }
    return dims_of(graph), dtypes


def _layers(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], dtypes: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[tuple[Layer, ...], str]:
    """One layer a node of the main graph, and why the multiply-adds of the first uncounted one cannot be told."""
    graph, reason = model.graph, ""
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    counted = {name: elements(tensor) for name, tensor in learnt_tensors(graph).items()}
    inputs = _infos(_fed(graph))
    sample = Sample.of(inputs, sizes)
    bound = {info.name: sample.shape(info.shape) for info in inputs if info.shape is not None}
    try:
        concrete = infer_dims(onnx.ModelProto.FromString(model.SerializeToString()), bound)
    except Uncounted as unknown:
        concrete, reason = {}, str(unknown)
    layers = []
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant":
            continue
        macs: int | None = None
        try:
            macs = node_macs(node, concrete) // sample.samples
        except Uncounted as unknown:
            reason = reason or f"{unknown}{_hint(bound)}"
        output = next(filter(None, node.output), "")
        layers.append(
            Layer(
                name=node.name or output or f"{node.op_type}_{index}",
                operator=_operator(node),
                inputs=tuple(name for name in node.input if name and name not in constant),
                outputs=tuple(filter(None, node.output)),
                output_shape=shapes.get(output),
                dtype=dtypes.get(output),
                parameters=sum(counted.get(name, 0) for name in read_by(node))
                + _parameters(within(*inner_graphs(node))),
                macs=macs,
            )
        )
    return tuple(layers), reason


def _parameters(graphs: Iterable[Any]) -> int:
    return sum(elements(tensor) for graph in graphs for tensor in learnt_tensors(graph).values())


def _hint(bound: Mapping[str, Shape]) -> str:
    """What to type where a dimension with a name stayed open."""
    open_names = [size for dims in bound.values() for size in dims if isinstance(size, str)]
    return f"; bind {open_names[0]!r} with --size {open_names[0]}=N" if open_names else ""


def _fed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give: older files list the initializers among them."""
    given = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in given]


def _infos(
    values: Iterable[onnx.ValueInfoProto], shapes: Mapping[str, Shape] | None = None
) -> tuple[TensorInfo, ...]:
    infos = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = dtype_name(tensor.elem_type) if tensor.elem_type else value.type.WhichOneof("value")
        shape = value_dims(value) if tensor.HasField("shape") else None
        infos.append(TensorInfo(value.name, dtype, (shapes or {}).get(value.name, shape)))
    return tuple(infos)


def _operator(node: onnx.NodeProto) -> str:
    """The operator's name, with its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
