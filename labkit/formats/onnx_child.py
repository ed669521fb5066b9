"""Opens an ONNX file that nobody vouches for: parse, check, open, run once, under the sandbox's limits.

A file of 129 bytes can ask for gigabytes as soon as it is opened (an Expand of a constant), and another can
run for centuries (a Loop of 2^62 turns). Neither shows before it happens. So it happens here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from labkit.errors import ModelFileError
from labkit.formats.child import Problem, answer, in_short, limit_memory
from labkit.onnx_graph.stored import LARGEST_DIMENSION, check_stored, constants, graphs, held, is_external
from labkit.variant.trial import trial_shapes

_MOST_DIMENSIONS = 16


def inspect(data: bytes, memory_bytes: int) -> dict[str, Any]:
    """Parse, check, open and run the model once; returns what a Variant needs to know. Raises Problem."""
    limit_memory(memory_bytes)
    model = parse(data)
    for graph in graphs(model):
        check_tensors(graph)
    try:
        onnx.checker.check_model(data)
    except Exception as error:
        raise Problem(f"it is not valid ONNX: {in_short(error)}") from None
    session = open_session(data)
    inputs = [describe(value) for value in session.get_inputs()]
    outputs = [describe(value) for value in session.get_outputs()]
    if not inputs or not outputs:
        raise Problem("it takes no inputs" if not inputs else "it has no outputs")
    run_once(session, inputs, memory_bytes)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith("labkit.")}
    return {"inputs": inputs, "outputs": outputs, "metadata": metadata}


def parse(data: bytes) -> onnx.ModelProto:
    """Bytes → the model's graph, if it is one and not newer than what is installed."""
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception:
        raise Problem("it is not an ONNX file, or only a part of one") from None
    if not model.ir_version or not model.graph.node:
        raise Problem("it is not an ONNX file, or it holds no operators")
    if model.ir_version > onnx.IR_VERSION:
        raise Problem(
            f"its IR version {model.ir_version} is newer than {onnx.IR_VERSION}: upgrade the package onnx"
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise Problem(
                f"its opset {opset.version} is newer than {newest}: export it again with an older opset"
            )
    return model


def check_tensors(graph: Any) -> None:
    """Refuse data outside the file, and sizes that the data does not bear out."""
    for tensor in constants(graph):
        if is_external(tensor):
            raise Problem(f"tensor {tensor.name[:80]!r} keeps its data in another file")
        try:
            check_stored(tensor, held(tensor))
        except ModelFileError as error:
            raise Problem(str(error)) from None


def open_session(data: bytes) -> ort.InferenceSession:
    """As labkit's own runtime does it, constant folding included."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        raise Problem(f"ONNX Runtime cannot open it: {in_short(error)}") from None


def describe(value: ort.NodeArg) -> dict[str, Any]:
    """{"name", "dtype" (numpy's name), "shape" (ints, names, or None for a dimension without a name)}."""
    kind = value.type
    if not kind.startswith("tensor("):
        raise Problem(f"{value.name!r} is a {kind[:40]}, not a tensor")
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    dtype = names.get(kind, kind[len("tensor(") : -1])
    if not hasattr(np, dtype) or dtype == "string":
        raise Problem(f"{value.name!r} holds {dtype}, which numpy does not have")
    shape = [None if isinstance(size, int) and size < 0 else size for size in value.shape]
    numbers = [size for size in shape if isinstance(size, int)]
    if len(shape) > _MOST_DIMENSIONS or not all(1 <= size <= LARGEST_DIMENSION for size in numbers):
        raise Problem(f"{value.name!r} has the shape {shape[:_MOST_DIMENSIONS]}")
    return {"name": value.name, "dtype": dtype, "shape": shape}


def run_once(session: ort.InferenceSession, inputs: list[dict[str, Any]], memory_bytes: int) -> None:
    """One sample of zeros. To fail is forgiven (a free size may be too small for it), to hang is not.

    A model of large images may take more memory than its file's size explains, in proportion to its input.
    """
    feeds = {}
    shapes = trial_shapes([item["shape"] for item in inputs], samples=1)
    for item, shape in zip(inputs, shapes, strict=True):
        feeds[item["name"]] = np.zeros(shape, item["dtype"])
    limit_memory(memory_bytes + min(4 * memory_bytes, 16 * sum(array.nbytes for array in feeds.values())))
    try:
        session.run(None, feeds)
    except Exception as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise MemoryError from None


if __name__ == "__main__":
    answer(inspect)
