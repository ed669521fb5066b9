"""Opening a file: ONNX bytes in the one form that everything else here expects.

Files say the same thing in several ways. Constants are initializers, some of them sparse, or outputs of Constant
nodes. Old files list their initializers among the graph's inputs too, as values that a caller may replace; left on
that list, their types and shapes would have to be kept true there as well whenever a constant is rewritten. And
optimizers store equal constants once: a scale of a batch norm, all ones, may be its running variance too.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from labkit.errors import TechniqueError
from labkit.onnx_graph.fold import own_norms
from labkit.onnx_graph.graph import replace_nodes

_OLDEST_OPSET = 13  # the first whose DequantizeLinear takes one scale per channel
_OPSET = 18
_OLDEST_IR_VERSION = 4  # the first in which an initializer need not be an input


def open_graph(payload: bytes) -> onnx.ModelProto:
    """Parse ONNX bytes, in opset 13 or newer, with every constant an initializer, dense, and none of them an input.

    Every batch norm has four constants that nothing else reads: training moves all four, each in its own way.
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
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    model.graph.initializer.extend(map(_dense, model.graph.sparse_initializer))
    del model.graph.sparse_initializer[:]
    constants = {tensor.name for tensor in model.graph.initializer}
    replace_nodes(model, kept)
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    own_norms(model)
    model.ir_version = max(model.ir_version, _OLDEST_IR_VERSION)
    return model


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The same constant with its zeros written out; its indices are [values] or [values, rank]."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    dense[np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)
