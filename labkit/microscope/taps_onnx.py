"""Taps of ONNX models: every node's output is declared an output of the model, and ONNX Runtime fuses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from labkit.errors import ModelFileError
from labkit.microscope.taps import INPUT, Tap
from labkit.onnx_graph import Graph
from labkit.quantize.arithmetic.grid import dequantize
from labkit.runtimes import get_runtime
from labkit.variant import Array, Variant


def read(variant: Variant, feeds: Mapping[str, Array]) -> Iterator[Tap]:
    """The taps of an `onnx` variant; integers that stand for real numbers are given as those."""
    model = onnx.load_model_from_string(variant.payload)
    graph = Graph(model)
    used = {name for name, users in graph.consumers.items() if users} | graph.outputs
    used |= {node.output[0] for node in graph.nodes}  # side results that nobody reads are left out
    names = [name for node in graph.nodes for name in node.output if name in used - {""}]
    values = _run(variant, model, names, feeds)
    for spec in variant.inputs:
        yield Tap(spec.name, INPUT, spec.name, "", (), feeds[spec.name])
    for node in graph.nodes:
        inputs = tuple(dict.fromkeys(name for name in node.input if name and name not in graph.constants))
        for name in node.output:
            if isinstance(values.get(name), np.ndarray):
                layer, settings = _layer(graph, node), _settings(graph, node)
                value = _real(graph, node, values[name])
                yield Tap(name, node.op_type, node.name or name, layer, inputs, value, settings)


def _run(
    variant: Variant, model: onnx.ModelProto, names: list[str], feeds: Mapping[str, Array]
) -> dict[str, Any]:
    ort = get_runtime("onnxruntime").engine()
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:  # onnxruntime raises a dozen kinds of its own
        raise ModelFileError(f"ONNX Runtime cannot run {variant.name!r}: {str(error)[:300]}") from None


def _real(graph: Graph, node: onnx.NodeProto, value: Array) -> Array:
    """What a quantized tensor stands for; every other tensor as it is."""
    if node.op_type != "QuantizeLinear":
        return value
    scale, zero_point = (graph.constant(name) for name in (*node.input[1:3], "")[:2])
    if scale is None or scale.ndim:
        return value
    return dequantize(value, scale, np.zeros((), value.dtype) if zero_point is None else zero_point)


def _layer(graph: Graph, node: onnx.NodeProto) -> str:
    """The prefix of its weight's name, blocks.3.conv1 of blocks.3.conv1.weight; else the node's own name."""
    weight = next((name for name in node.input[1:2] if name.split("/")[0].endswith(".weight")), "")
    return weight.split("/")[0].removesuffix(".weight") or node.name


def _settings(graph: Graph, node: onnx.NodeProto) -> dict[str, Any]:
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    constants = {f"input {place}": graph.constant(name) for place, name in enumerate(node.input)}
    return {**attributes, **{key: value for key, value in constants.items() if value is not None}}
