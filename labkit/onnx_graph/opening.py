"""Opening a file: ONNX bytes in the one form that everything else here expects.

Files say the same thing in several ways. Constants are initializers, some of them sparse, or outputs of Constant
nodes. Old files list their initializers among the graph's inputs too, as values that a caller may replace; left on
that list, their types and shapes would have to be kept true there as well whenever a constant is rewritten. And
optimizers store equal constants once: a scale of a batch norm, all ones, may be its running variance too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from labkit.errors import ModelFileError, TechniqueError
from labkit.onnx_graph.fold import own_norms
from labkit.onnx_graph.graph import refill, replace_nodes
from labkit.onnx_graph.stored import bits, run_graphs

_OLDEST_OPSET = 13  # the first whose DequantizeLinear takes one scale per channel
_OPSET = 18
_OLDEST_IR_VERSION = 4  # the first in which an initializer need not be an input
_MOST_BYTES = 2**31 - 1  # of a message of protobuf's, which an ONNX file is
_LISTED = {"value_float": np.float32, "value_int": np.int64, "value_string": object}
"""What a Constant node may hold beside tensors, one or several, and as which type."""
_TRACES = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")
"""Where an exporter notes which line of whose code made a node: half of a small file, and nobody else's business."""


def open_graph(payload: bytes) -> onnx.ModelProto:
    """Parse ONNX bytes, in opset 13 or newer, with every constant an initializer, dense, and none of them an input.

    Every batch norm has four constants that nothing else reads: training moves all four, each in its own way. What
    the exporter noted of the code that made a node is left out.
    Raises TechniqueError for an opset that cannot be converted, ModelFileError for sparse constants that no file can
    hold dense.
    """
    model = onnx.load_model_from_string(payload)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:
            raise TechniqueError(
                f"the model's opset {opset} is too old to be changed, and onnx cannot convert it to "
                f"{_OPSET} ({str(error).strip()[:120]}): export it again with opset {_OPSET}"
            ) from None
    made = [node for node in model.graph.node if node.op_type == "Constant"]
    held = {node.output[0]: node.attribute[0] for node in made}
    sparse = {each.values.name: each for each in model.graph.sparse_initializer}
    sparse |= {name: each.sparse_tensor for name, each in held.items() if each.name == "sparse_value"}
    _check_room(sparse)
    model.graph.initializer.extend(_dense(name, each) for name, each in sparse.items())
    model.graph.initializer.extend(_tensor(name, held[name]) for name in held if name not in sparse)
    del model.graph.sparse_initializer[:]
    constants = {tensor.name for tensor in model.graph.initializer}
    replace_nodes(model, [node for node in model.graph.node if node.op_type != "Constant"])
    refill(model.graph.input, [value for value in model.graph.input if value.name not in constants])
    own_norms(model)
    for node in (node for graph in run_graphs(model) for node in graph.node):
        refill(node.metadata_props, [entry for entry in node.metadata_props if entry.key not in _TRACES])
    model.ir_version = max(model.ir_version, _OLDEST_IR_VERSION)
    return model


def _check_room(sparse: Mapping[str, onnx.SparseTensorProto]) -> None:
    """Raise ModelFileError for sparse constants that are too large to be written out, before anybody tries."""
    sizes = {name: math.prod(each.dims) * bits(each.values.data_type) // 8 for name, each in sparse.items()}
    if (total := sum(sizes.values())) > _MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ModelFileError(
            f"{largest!r} {list(sparse[largest].dims)} is sparse, and with the zeros of its sparse constants written "
            f"out the file would take {total:,} bytes; an ONNX file holds 2 GiB at most: run it as it is, or export "
            "it with smaller constants"
        )


def _dense(name: str, sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The same constant with its zeros written out; its indices are [values] or [values, rank]."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    dense[np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)] = values
    return numpy_helper.from_array(dense, name)


def _tensor(name: str, given: onnx.AttributeProto) -> onnx.TensorProto:
    """What a Constant node holds in its attribute: a tensor, one number or text, or a list of them."""
    if given.name == "value":
        given.t.name = name
        return given.t
    values = np.array(onnx.helper.get_attribute_value(given), _LISTED[given.name.removesuffix("s")])
    return numpy_helper.from_array(values, name)
