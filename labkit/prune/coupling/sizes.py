"""How large every tensor of a graph is, found by running it: what a graph computes about its own shapes it then tells.

A dimension that has a name may vary. It is run with 2 samples and once more with 3, and with images that are twice as
large if their size is free: what changes depends on what is shown, what does not is fixed. So are whole numbers that
follow from shapes alone, such as the bounds of a Slice that the graph works out each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from labkit.errors import TechniqueError
from labkit.onnx_graph import read_by
from labkit.runtimes import get_runtime
from labkit.variant import Array, trial_shapes
from labkit.variant.trial import PLACES

_FEWER, _MORE = (2, PLACES), (3, 2 * PLACES)  # samples, and free places of an image


@dataclass(frozen=True)
class Sizes:
    """Tensor → its sizes with few samples; its axes that depend on what is shown; whole numbers that are settled."""

    known: Mapping[str, tuple[int, ...]]
    free: Mapping[str, tuple[int, ...]]
    settled: Mapping[str, Array]


def find_sizes(model: onnx.ModelProto) -> Sizes:
    """Run the graph with few samples, and with one more.

    Floats are normally distributed, whole numbers zero. Raises TechniqueError if ONNX Runtime cannot run the graph.
    """
    fewer, more = _run(model, *_FEWER), _run(model, *_MORE)
    told = _told_by_data(model)
    free = {
        name: tuple(axis for axis, size in enumerate(value.shape) if more[name].shape[axis] != size)
        for name, value in fewer.items()
    }
    settled = {
        name: value
        for name, value in fewer.items()
        if name not in told and value.dtype.kind == "i" and np.array_equal(value, more[name])
    }
    return Sizes({name: tuple(value.shape) for name, value in fewer.items()}, free, settled)


def _told_by_data(model: onnx.ModelProto) -> set[str]:
    """The tensors that hold more than shapes: the inputs, and what is computed from their values."""
    told = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type not in ("Shape", "Size") and told & read_by(node):
            told.update(node.output)
    return told


def _run(model: onnx.ModelProto, samples: int, places: int) -> dict[str, Array]:
    """Every tensor's values, with inputs of the `trial_shapes`."""
    ort = get_runtime("onnxruntime").engine()
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    declared = {value.name for value in model.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in declared)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    feeds = _feeds(model, samples, places)
    try:
        session = ort.InferenceSession(
            observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = session.run(names, feeds)
    except Exception as error:  # onnxruntime raises a dozen kinds of its own
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
        raise TechniqueError(f"the graph cannot be run with {shapes}: {str(error)[:300]}") from None
    return feeds | {
        name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)
    }


def _feeds(model: onnx.ModelProto, samples: int, places: int) -> dict[str, Array]:
    random, feeds = np.random.default_rng(0), dict[str, Array]()
    tensors = [value.type.tensor_type for value in model.graph.input]
    given = [
        [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]
        for tensor in tensors
    ]
    shapes = trial_shapes(given, samples, places)
    for value, tensor, shape in zip(model.graph.input, tensors, shapes, strict=True):
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        is_float = np.issubdtype(dtype, np.floating)
        feeds[value.name] = (
            random.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
        )
    return feeds
