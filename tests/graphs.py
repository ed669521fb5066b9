"""Small ONNX models as any user might bring them, and random data that fits them."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from labkit.data import Dataset, Split
from labkit.runtimes import get_runtime
from labkit.variant import TensorSpec, Variant


def normal(name, *shape):
    """Normally distributed numbers that depend on name and shape alone, whatever was made before."""
    seed = zlib.crc32(f"{name} {shape}".encode())
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def weight(name, *shape):
    values = normal(name, *shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return numpy_helper.from_array(values.astype(np.float32), name)


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def build(nodes, constants, shape=("batch", 3, 16, 16), outputs=("batch", 10), opset=18, ir_version=9):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    specs = [TensorSpec("x", "float32", tuple(shape)), TensorSpec("y", "float32", tuple(outputs))]
    return Variant("user", "onnx", model.SerializeToString(), (specs[0],), (specs[1],))


def data_for(variant, count=300):
    """Random samples, labelled by the model itself: so its own accuracy is 100 %."""
    sizes = [8 if isinstance(size, str) else size for size in variant.inputs[0].shape[1:]]
    x = normal("samples", count, *sizes)
    size = variant.inputs[0].shape[0]
    with get_runtime("onnxruntime").load(variant) as session:
        parts = np.split(x, count // size) if isinstance(size, int) else [x]
        y = np.concatenate([session.run({"x": part})["y"] for part in parts]).argmax(1)
    whole = Split({"x": x}, y.astype(np.int64))
    splits = {name: whole.take(slice(0, count)) for name in ("train", "calibration", "validation", "test")}
    return Dataset("random", "classification", splits)


def batch_norm(index, channels=16):
    names = (f"gamma{index}", f"beta{index}", f"mean{index}")
    return [*(weight(name, channels) for name in names), constant(f"var{index}", np.full(channels, 0.7))]


def small_cnn(opset=18, ir_version=9, batch="batch"):
    """Conv → BN → Relu → Conv → BN → Add → Relu → MaxPool → MatMul → Add, nothing folded."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2 b2", "c2", pads=[1] * 4),
        node("BatchNormalization", "c2 gamma2 beta2 mean2 var2", "n2"),
        node("Add", "n2 r1", "a"),
        node("Relu", "a", "r2"),
        node("MaxPool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("MatMul", "f w3", "m"),
        node("Add", "m b3", "y"),
    ]
    constants = [weight("w1", 16, 3, 3, 3), weight("w2", 16, 16, 3, 3), weight("b2", 16)]
    constants += [weight("w3", 1024, 10), weight("b3", 10), *batch_norm(1), *batch_norm(2)]
    return build(nodes, constants, (batch, 3, 16, 16), (batch, 10), opset, ir_version)


def mlp():
    nodes = [
        node("MatMul", "x w1", "m1"),
        node("Add", "m1 b1", "a1"),
        node("Relu", "a1", "r1"),
        node("MatMul", "r1 w2", "y"),
    ]
    return build(nodes, [weight("w1", 32, 64), weight("b1", 64), weight("w2", 64, 10)], ("batch", 32))


def conv1d():
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("Clip", "c low high", "r"),
        node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w2 b2", "y"),
    ]
    constants = [weight("w", 16, 4, 3), weight("b", 16), weight("w2", 16, 10), weight("b2", 10)]
    constants += [constant("low", 0.0), constant("high", 6.0)]
    return build(nodes, constants, ("batch", 4, "time"))


def branches():
    """Two convolutions, one without ReLU, joined by Concat; and a weight in a Constant node."""
    nodes = [
        node("Constant", "", "w3", value=weight("w3", 16, 32, 1, 1)),
        node("Conv", "x w1 b1", "c1", pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("Conv", "x w2", "c2", pads=[1] * 4),
        node("Concat", "r1 c2", "a", axis=1),
        node("AveragePool", "a", "p", kernel_shape=[2, 2]),
        node("Conv", "p w3", "c3"),
        node("GlobalAveragePool", "c3", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w4 b4", "y", transB=1),
    ]
    constants = [weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 16, 3, 3, 3)]
    return build(nodes, [*constants, weight("w4", 10, 16), weight("b4", 10)])


def attention():
    """One head without a mask: the two products of activations have no stored weight."""
    nodes = [
        node("MatMul", "x wq", "q"),
        node("MatMul", "x wk", "k"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p"),
        node("MatMul", "p x", "o"),
        node("ReduceMean", "o axes", "r", keepdims=0),
        node("Gemm", "r w b", "y"),
    ]
    constants = [weight("wq", 16, 16), weight("wk", 16, 16), weight("w", 16, 10), weight("b", 10)]
    return build(nodes, [*constants, constant("axes", [1], np.int64)], ("batch", "time", 16))


W = normal("W", 6, 6)


def network(*nodes, **constants):
    """x [N, 6] → y [N, 6]."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 6]) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    specs = [TensorSpec(name, "float32", ("batch", 6)) for name in ("x", "y")]
    return Variant("net", "onnx", model.SerializeToString(), (specs[0],), (specs[1],), task="regression")
