"""Static int8 of models that others have made: every layer in integers, or the reason why not."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from labkit.data import Split
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.progress import silent
from labkit.quantize import QuantizeInt8, quantization_report
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.graph.qdq import activation_grids, insert_qdq, round_weights, weight_grids
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import (
    attention,
    batch_norm,
    branches,
    build,
    constant,
    conv1d,
    data_for,
    mlp,
    node,
    normal,
    small_cnn,
    weight,
)
from tests.quantized import ENGINES, operators, ranges_of

USERS = {
    "cnn": (small_cnn, 3, {"QLinearConv": 2, "QLinearAdd": 1, "QGemm": 1}),
    "cnn, opset 11": (lambda: small_cnn(11, 6), 3, {"QLinearConv": 2, "QLinearAdd": 1, "QGemm": 1}),
    "mlp": (mlp, 2, {"QGemm": 1, "MatMulIntegerToFloat": 1}),
    "conv1d": (conv1d, 2, {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
    "branches": (branches, 4, {"QLinearConv": 3, "QLinearConcat": 1, "QLinearAveragePool": 1, "QGemm": 1}),
    "attention": (attention, 3, {"MatMulIntegerToFloat": 2, "QGemm": 1}),
}


@pytest.mark.parametrize("name", USERS)
def test_a_user_s_model_runs_as_real_int8(name, tmp_path):
    make, layers, expected = USERS[name]
    variant = make()
    quantized = QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant))
    assert quantization_report(quantized).quantized == layers
    found = operators(quantized, tmp_path)
    assert {kind: found[kind] for kind in expected} == expected
    onnx.checker.check_model(onnx.load_model_from_string(quantized.payload), full_check=True)


def test_what_stayed_float_is_named_with_the_reason():
    variant = attention()
    report = quantization_report(QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant)))
    assert (report.quantized, report.layers) == (3, 5)
    assert set(report.left) == {"s", "o"} and "computed" in report.left["s"]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_taken_as_it_is(batch):
    variant = small_cnn(batch=batch)
    quantized = QuantizeInt8().apply(variant, data_for(variant), silent)
    assert quantized.inputs[0].shape[0] == batch
    assert quantization_report(quantized).quantized == 3


@pytest.mark.parametrize("with_relu", [False, True])
def test_a_convolution_whose_output_is_the_model_s_keeps_its_name(with_relu):
    nodes = [node("Conv", "x w b", "c" if with_relu else "y")] + [node("Relu", "c", "y")] * with_relu
    variant = build(nodes, [weight("w", 10, 3, 3, 3), weight("b", 10)], outputs=("batch", 10, 14, 14))
    model = open_graph(variant.payload)
    plan = make_plan(model)
    samples = Split({"x": normal("samples", 8, 3, 16, 16)}, np.zeros(8))
    grids = activation_grids(ranges_of(variant, model, [*plan.tensors], samples))
    graph = Graph(model)
    insert_qdq(model, plan, grids, round_weights(graph, weight_grids(graph, plan, grids)))
    quantized = dataclasses.replace(variant, model=model.SerializeToString())
    with get_runtime("onnxruntime").load(variant) as a, get_runtime("onnxruntime").load(quantized) as b:
        x, y = (session.run(dict(samples.inputs))["y"] for session in (a, b))
    assert 0 < np.abs(x - y).max() < 0.05 * np.abs(x).max()


def test_folding_and_joining_change_no_number():
    variant = small_cnn()
    model = open_graph(variant.payload)
    assert fold_batch_norm(model) == 2 and join_bias(model) == 1
    assert not {"BatchNormalization", "MatMul"} & {n.op_type for n in model.graph.node}
    folded = dataclasses.replace(variant, model=model.SerializeToString())
    feeds = probe(variant, 5)
    with get_runtime("onnxruntime").load(variant) as a, get_runtime("onnxruntime").load(folded) as b:
        np.testing.assert_allclose(a.run(feeds)["y"], b.run(feeds)["y"], rtol=1e-4, atol=1e-5)


def test_a_batch_norm_is_left_where_the_convolution_has_another_user():
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Add", "n1 c1", "y"),
    ]
    variant = build(nodes, [weight("w1", 16, 3, 3, 3), *batch_norm(1)], outputs=("batch", 16, 16, 16))
    assert fold_batch_norm(open_graph(variant.payload)) == 0


def test_layers_that_share_a_weight_store_it_once():
    nodes = [
        node("Gemm", "x w b1", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r w b2", "y"),
    ]
    variant = build(nodes, [weight("w", 10, 10), weight("b1", 10), weight("b2", 10)], ("batch", 10))
    quantized = QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant))
    stored = [t.name for t in onnx.load_model_from_string(quantized.payload).graph.initializer]
    assert stored.count("w/quantized") == 1 and "w" not in stored


def test_a_weight_shared_the_other_way_round_stays_float_in_one_layer():
    nodes = [node("Gemm", "x w b1", "h"), node("Gemm", "h w b2", "y", transB=1)]
    variant = build(nodes, [weight("w", 10, 10), weight("b1", 10), weight("b2", 10)], ("batch", 10))
    report = quantization_report(QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant)))
    assert report.quantized == 1 and "transposed" in report.left["y"]


def test_a_channel_of_nearly_nothing_does_not_overflow_its_bias():
    w = np.concatenate([np.full((1, 3, 3, 3), 1e-30), np.zeros((1, 3, 3, 3)), np.ones((8, 3, 3, 3))])
    nodes = [node("Conv", "x w b", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    bias = constant("b", [3.0, -2.0, *[0.0] * 8])
    variant = build(nodes, [constant("w", w), bias])
    quantized = QuantizeInt8(max_drop_pp=100.0)(variant, data_for(variant))
    with get_runtime("onnxruntime").load(quantized) as session:
        y = session.run(probe(quantized))["y"]
    np.testing.assert_allclose(y[:, :2], [[3.0, -2.0]] * 2, atol=0.3)


def tokens_of_a_convolution():
    nodes = [
        node("Conv", "x w b", "c", strides=[4, 4]),
        node("Reshape", "c shape", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1]),
        node("ReduceMean", "t axes", "m", keepdims=0),
        node("Gemm", "m w2 b2", "y"),
    ]
    constants = [weight("w", 16, 3, 4, 4), constant("b", np.linspace(-1, 0.5, 16)), weight("w2", 16, 10)]
    constants += [
        weight("b2", 10),
        constant("axes", [1], np.int64),
        constant("shape", [-1, 16, 16], np.int64),
    ]
    return build(nodes, constants)


def tokens_that_a_layer_reads_too():
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", "a w2", "h"),
        node("Add", "h a", "z"),
        node("ReduceMean", "a axes", "m", keepdims=0),
        node("ReduceMean", "z axes", "n", keepdims=0),
        node("Add", "m n", "f"),
        node("Gemm", "f w3 b3", "y"),
    ]
    constants = [weight("w", 16, 16), weight("w2", 16, 16), weight("w3", 16, 10), weight("b3", 10)]
    return build(nodes, [*constants, constant("axes", [1], np.int64)], ("batch", 8, 16))


def sequence_without_relu():
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w2 b2", "y"),
    ]
    constants = [weight("w", 16, 4, 3), constant("b", np.linspace(-1, 0.5, 16)), weight("w2", 16, 10)]
    return build(nodes, [*constants, weight("b2", 10)], ("batch", 4, 32))


def sequence_whose_mean_no_layer_reads():
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("Relu", "c", "r"),
        node("ReduceMean", "r axes", "m", keepdims=0),
        node("Tanh", "m", "y"),
    ]
    constants = [
        weight("w", 10, 4, 3),
        constant("b", np.linspace(-1, 0.5, 10)),
        constant("axes", [2], np.int64),
    ]
    return build(nodes, constants, ("batch", 4, 32))


AVERAGED = (
    tokens_of_a_convolution,
    tokens_that_a_layer_reads_too,
    sequence_without_relu,
    sequence_whose_mean_no_layer_reads,
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", AVERAGED)
def test_the_mean_of_a_sequence_is_the_same_number_in_openvino(make, engine):
    """With an unsigned grid it would be off by several standard deviations of the logits."""
    variant = make()
    made = QuantizeInt8(max_drop_pp=15.0, runtime=engine)(variant, data_for(variant))
    feeds = probe(variant, 32)
    with get_runtime("onnxruntime").load(variant) as session:
        exact = session.run(feeds)["y"]
    for runtime in ENGINES:
        with get_runtime(runtime).load(made) as session:
            assert np.abs(session.run(feeds)["y"] - exact).max() < 0.2 * exact.std(), runtime


def test_a_product_that_is_doubled_has_no_bias_to_join():
    nodes = [node("MatMul", "x w", "m"), node("Add", "m m", "y")]
    model = open_graph(build(nodes, [weight("w", 16, 10)], ("batch", 16)).payload)
    assert join_bias(model) == 0


def test_a_batch_norm_is_left_where_the_convolution_is_in_half_precision():
    nodes = [
        node("Cast", "x", "x16", to=onnx.TensorProto.FLOAT16),
        node("Conv", "x16 w", "c"),
        node("BatchNormalization", "c gamma1 beta1 mean1 var1", "n"),
        node("Cast", "n", "y", to=onnx.TensorProto.FLOAT),
    ]
    constants = [constant("w", normal("w", 16, 3, 1, 1), np.float16), *batch_norm(1)]
    variant = build(nodes, constants, outputs=("batch", 16, 16, 16))
    assert fold_batch_norm(open_graph(variant.payload)) == 0


@pytest.mark.parametrize("order", [(1.0, 3e6), (3e6, 1.0)])
def test_a_weight_that_layers_share_leaves_room_for_either_one_s_bias(order):
    nodes = [node("Gemm", "x w b0", "p"), node("Gemm", "x w b1", "q"), node("Sub", "p q", "y")]
    constants = [constant("w", np.full((10, 10), 1e-6))]
    constants += [constant(f"b{place}", np.full(10, size)) for place, size in enumerate(order)]
    model = open_graph(build(nodes, constants, ("batch", 10)).payload)
    plan = make_plan(model)
    activations = activation_grids({"x": Range(-1.0, 1.0)})
    grids = weight_grids(Graph(model), plan, activations)
    unit = np.float64(activations["x"].scale) * grids["w"].scale
    assert (max(order) / unit <= 2.0**30 * 1.001).all()
