"""Networks of layers that may share their scales, and what is asked about them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.quantize.equalize import _pairs
from labkit.runtimes import get_runtime
from tests.graphs import build, constant, mlp, node, weight

SIX = [constant("low", 0.0), constant("six", 6.0)]


def answers(variant, x):
    with get_runtime("onnxruntime").load(variant) as session:
        return session.run({"x": x})["y"]


def kinds(variant):
    return Counter(each.op_type for each in onnx.load_model_from_string(variant.payload).graph.node)


def pairs_of(variant):
    model = open_graph(variant.payload)
    fold_batch_norm(model)
    join_bias(model)
    return list(_pairs(Graph(model)))


def loud(name, *shape):
    """Weights of a few units: so that activations pass 6."""
    tensor = weight(name, *shape)
    return constant(name, 4 * numpy_helper.to_array(tensor))


def chain(*between, bias=True, depthwise=False, channels=8):
    """Conv, what is between, Conv, the same again, Conv; then pooled to 10 numbers."""
    nodes, constants, name, inputs = [], [], "x", 3
    for index in range(3):
        group = channels if depthwise and index == 1 else 1
        out = f"c{index}"
        nodes.append(node("Conv", f"{name} w{index}" + f" b{index}" * bias, out, pads=[1] * 4, group=group))
        constants.append(loud(f"w{index}", channels, inputs // group, 3, 3))
        constants += [loud(f"b{index}", channels)] * bias
        for place, kind in enumerate(between if index < 2 else ()):
            result = f"t{index}_{place}"
            nodes.append(between_node(kind, out, result))
            out = result
        name, inputs = out, channels
    nodes += [node("GlobalAveragePool", name, "g"), node("Flatten", "g", "f"), node("Gemm", "f wf bf", "y")]
    return build(nodes, [*constants, weight("wf", channels, 10), weight("bf", 10), *SIX])


def between_node(kind, source, result):
    if kind == "Relu6":
        return node("Clip", f"{source} low six", result)
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2]} if kind.endswith("Pool") else {}
    return node(kind, source, result, **pooling)


def dense_chain(turned, bias=True, act="Relu"):
    nodes, constants, name, inputs = [], list(SIX), "x", 24
    for index, outputs in enumerate((32, 20, 10)):
        last = index == 2
        w = weight(f"w{index}", *((outputs, inputs) if turned else (inputs, outputs)))
        settings = {"transB": 1} if turned else {}
        made = "y" if last else f"h{index}"
        nodes.append(node("Gemm", f"{name} w{index}" + f" b{index}" * bias, made, **settings))
        if not last:
            nodes.append(between_node(act, made, f"r{index}"))
        constants += [w, *[weight(f"b{index}", outputs)] * bias]
        name, inputs = f"r{index}", outputs
    used = {each for made in nodes for each in made.input}
    return build(nodes, [each for each in constants if each.name in used], ("batch", 24))


NETS = {
    "relu": (lambda: chain("Relu"), 2),
    "nothing between": (lambda: chain(), 2),
    "no bias": (lambda: chain("Relu", bias=False), 2),
    "relu6": (lambda: chain("Relu6"), 2),
    "relu6, depthwise": (lambda: chain("Relu6", depthwise=True), 2),
    "depthwise": (lambda: chain("Relu", depthwise=True), 2),
    "pooled": (lambda: chain("Relu", "MaxPool"), 2),
    "pooled first": (lambda: chain("AveragePool", "Relu6"), 2),
    "two caps": (lambda: chain("Relu6", "MaxPool", "Relu6"), 2),
    "mlp": (mlp, 1),
    "gemm": (lambda: dense_chain(0), 2),
    "gemm, turned": (lambda: dense_chain(1), 2),
    "gemm, no bias": (lambda: dense_chain(0, bias=False), 2),
    "gemm, relu6": (lambda: dense_chain(1, act="Relu6"), 2),
}


def largest(values, axis):
    return np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis))


def constants_of(variant):
    graph = Graph(open_graph(variant.payload))
    return {name: graph.constant(name) for name in graph.constants}


def with_constants(variant, values):
    model = open_graph(variant.payload)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return dataclasses.replace(variant, model=model.SerializeToString())


def between_two(*nodes, constants=(), outputs=("batch", 10), **attributes):
    """Conv (c) … (r) Conv → 10 numbers."""
    whole = [
        node("Conv", "x w0 b0", "c", pads=[1] * 4),
        *nodes,
        node("Conv", "r w1", "d", pads=[1] * 4, **attributes),
        node("GlobalAveragePool", "d", "g"),
        node("Flatten", "g", "y"),
    ]
    groups = attributes.get("group", 1)
    weights = [
        weight("w0", 8, 3, 3, 3),
        weight("b0", 8),
        weight("w1", 10 if groups == 1 else 8, 8 // groups, 3, 3),
    ]
    return build(whole, [*weights, *constants], outputs=("batch", 8) if groups > 1 else outputs)


RELU = node("Relu", "c", "r")
