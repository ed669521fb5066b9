"""QuantizeDynamic: the integers are those of the arithmetic, each activation is quantized once, nothing is silent."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.quantize import quantization_report, weight_grid
from labkit.quantize.arithmetic.integer import dynamic_quantize, integer_conv, integer_matmul
from labkit.quantize.dynamic import QuantizeDynamic
from labkit.quantize.weight_only import QuantizeWeights
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import attention, branches, build, constant, conv1d, data_for, mlp, node, small_cnn, weight

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not get_runtime(name).is_available().ok, reason=f"needs the extra {name}"),
    )
    for name in ("onnxruntime", "openvino")
]


def answers(variant, x, engine="onnxruntime"):
    with get_runtime(engine).load(variant) as session:
        return session.run({"x": x})["y"]


def nodes_of(variant):
    return list(onnx.load_model_from_string(variant.payload).graph.node)


def kinds(variant):
    return Counter(each.op_type for each in nodes_of(variant))


def gemm(turned=0, bias=True):
    w = weight("w", *((20, 48) if turned else (48, 20)))
    settings = {"transB": 1} if turned else {}
    first = node("Gemm", "x w b" if bias else "x w", "y", **settings)
    return build([first], [w, weight("b", 20)][: 1 + bias], ("batch", 48), ("batch", 20))


def convolution(group=1, bias=True, **settings):
    w = weight("w", 12, 12 // group, 3, 3)
    first = node("Conv", "x w b" if bias else "x w", "y", group=group, **settings)
    shape = ("batch", 12, "height", "width")
    return build([first], [w, weight("b", 12)][: 1 + bias], ("batch", 12, 9, 9), shape)


# --- the arithmetic ---------------------------------------------------------------------------------


def by_hand(variant, x, granularity, product):
    """The layer's output after the book: the grid of x, whole numbers, one product with both scales."""
    graph = Graph(open_graph(variant.payload))
    layer = graph.nodes[0]
    w, b = graph.constant("w"), graph.constant("b")
    w = w.T if layer.op_type == "Gemm" and layer.attribute and layer.attribute[0].i else w
    grid = weight_grid(w, (1 if w.ndim == 2 else 0) if granularity == "per_channel" else None)
    x8, x_grid = dynamic_quantize(x)
    sums = product(x8, grid.quantize(w), x_grid.zero_point)
    axes = (-1, *[1] * (w.ndim - 2))
    scale = grid.scale.reshape(axes) if grid.scale.ndim else grid.scale
    return sums * (x_grid.scale * scale) + (0 if b is None else b.reshape(axes))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize(("turned", "bias"), [(0, True), (1, True), (0, False), (1, False)])
def test_a_product_is_that_of_the_whole_numbers(turned, bias, granularity, engine):
    variant = gemm(turned, bias)
    x = probe(variant, 7)["x"] * np.float32(3.0)
    found = answers(QuantizeDynamic(granularity=granularity)(variant), x, engine)
    expected = by_hand(variant, x, granularity, integer_matmul)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    other = "per_tensor" if granularity == "per_channel" else "per_channel"
    assert np.abs(by_hand(variant, x, other, integer_matmul) - expected).max() > 1e-3, (
        "the test must tell them"
    )
    assert np.abs(answers(variant, x) - expected).max() > 1e-3, "nor is it the float model"


CONVOLUTIONS = {
    "plain": {},
    "padded": {"pads": [1, 1, 1, 1]},
    "strides": {"strides": [2, 2], "pads": [0, 1, 1, 0]},
    "dilations": {"dilations": [2, 1]},
    "groups": {"group": 3},
    "depthwise": {"group": 12, "pads": [1] * 4},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_that_of_the_whole_numbers(name, engine):
    settings = CONVOLUTIONS[name]
    variant = convolution(**settings)
    x = probe(variant, 3)["x"]
    found = answers(QuantizeDynamic(convolutions=True)(variant), x, engine)

    def product(x8, w8, zero_point):
        geometry = {key: value for key, value in settings.items() if key != "bias"}
        return integer_conv(x8, w8, zero_point, **geometry)

    np.testing.assert_allclose(found, by_hand(variant, x, "per_channel", product), rtol=1e-5, atol=1e-5)


def test_the_grid_follows_what_comes():
    """An input a thousand times larger has a thousand times the steps: nothing is clipped, nothing is lost."""
    variant = gemm(bias=False)
    quantized, x = QuantizeDynamic()(variant), probe(gemm(), 7)["x"]
    small, large = answers(quantized, x), answers(quantized, x * np.float32(1024))
    np.testing.assert_allclose(large, small * 1024, rtol=1e-5)
    fixed, _ = dynamic_quantize(x)
    assert fixed.max() == 255, "on the first grid the second input would end here"


# --- the graph --------------------------------------------------------------------------------------


def test_what_three_layers_share_is_quantized_once():
    nodes = [node("MatMul", f"x w{i}", f"h{i}") for i in range(3)] + [node("Sum", "h0 h1 h2", "y")]
    weights = [weight(f"w{i}", 16, 10) for i in range(3)]
    variant = build(nodes, weights, ("batch", "time", 16), ("batch", "time", 10))
    quantized = QuantizeDynamic()(variant)
    found = kinds(quantized)
    assert (found["DynamicQuantizeLinear"], found["MatMulInteger"]) == (1, 3)
    x = probe(variant, 5)["x"]
    assert 0 < np.abs(answers(quantized, x) - answers(variant, x)).max() < 0.1
    apart = build(
        [node("MatMul", "x w0", "h0"), node("MatMul", "h0 w1", "y")],
        [weight("w0", 16, 16), weight("w1", 16, 10)],
        ("batch", 16),
    )
    assert kinds(QuantizeDynamic()(apart))["DynamicQuantizeLinear"] == 2


def test_a_weight_that_two_layers_share_is_stored_once():
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r w", "y")]
    variant = build(nodes, [weight("w", 32, 32)], ("batch", 32), ("batch", 32))
    quantized = QuantizeDynamic()(variant)
    names = [each.name for each in onnx.load_model_from_string(quantized.payload).graph.initializer]
    assert sorted(names) == ["w/quantized", "w/scale"]


USERS = {
    "cnn": (small_cnn, 1),
    "cnn, opset 11": (lambda: small_cnn(11, 6), 1),
    "cnn, a fixed batch": (lambda: small_cnn(batch=4), 1),
    "mlp": (mlp, 2),
    "conv1d": (conv1d, 1),
    "branches": (branches, 1),
    "attention": (attention, 3),
}


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("name", USERS)
def test_a_user_s_model_gives_the_same_in_both_engines(name, convolutions):
    make, products = USERS[name]
    variant = make()
    quantized = QuantizeDynamic(convolutions=convolutions)(variant, data_for(variant))
    onnx.checker.check_model(onnx.load_model_from_string(quantized.payload), full_check=True)
    in_all = products + (kinds(variant)["Conv"] if convolutions else 0)
    assert quantization_report(quantized).quantized == in_all
    x = probe(variant, 4)["x"]
    a, expected = answers(quantized, x), answers(variant, x)
    assert 0 < np.abs(a - expected).max() < 0.2 * np.abs(expected).max()
    if get_runtime("openvino").is_available().ok:
        np.testing.assert_allclose(answers(quantized, x, "openvino"), a, atol=1e-3 * np.abs(a).max())


def test_weights_of_a_large_product_take_a_quarter():
    variant = build([node("MatMul", "x w", "y")], [weight("w", 256, 256)], ("batch", 256), ("batch", 256))
    assert QuantizeDynamic()(variant).size_bytes < 0.27 * variant.size_bytes


# --- what must not pass in silence ------------------------------------------------------------------


def test_convolutions_stay_float_unless_asked_for_and_the_report_says_why():
    report = quantization_report(QuantizeDynamic()(branches()))
    assert (report.quantized, report.layers) == (1, 4)
    assert set(report.left) == {"c1", "c2", "c3"}
    assert all("ask for it with convolutions=True" in why for why in report.left.values())
    assert not quantization_report(QuantizeDynamic(convolutions=True)(branches())).left


def test_a_model_of_nothing_but_convolutions_says_what_to_do():
    variant = convolution()
    with pytest.raises(TechniqueError, match="nothing in 'user' is a matrix product.*convolutions=True"):
        QuantizeDynamic()(variant)
    assert quantization_report(QuantizeDynamic(convolutions=True)(variant)).quantized == 1


def test_nothing_to_quantize_is_refused():
    variant = build([node("Flatten", "x", "f"), node("Relu", "f", "y")], [], outputs=("batch", 768))
    with pytest.raises(TechniqueError, match="no Conv or ConvTranspose or Gemm or MatMul"):
        QuantizeDynamic()(variant)


def test_a_collapse_names_the_worst_layer_and_what_to_try():
    """One loud channel that nobody uses: with one grid for all, nothing is left of the others."""
    loud = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    loud[:, 0] *= 3000
    after = np.random.default_rng(1).standard_normal((64, 10)).astype(np.float32)
    after[0] = 0
    nodes = [node("MatMul", "x loud", "h"), node("Clip", "h low high", "r"), node("MatMul", "r after", "y")]
    limits = [constant("low", -5.0), constant("high", 5.0)]
    variant = build(nodes, [constant("loud", loud), constant("after", after), *limits], ("batch", 32))
    dataset = data_for(variant)
    with pytest.raises(TechniqueError, match="Worst is the weight 'loud'.*Try granularity='per_channel'"):
        QuantizeDynamic(granularity="per_tensor")(variant, dataset)
    assert quantization_report(QuantizeDynamic()(variant, dataset)).drop_pp < 5
    assert quantization_report(QuantizeDynamic(granularity="per_tensor")(variant)).drop_pp is None


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad):
    variant = gemm()
    model = onnx.load_model_from_string(variant.payload)
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 4] = bad
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    with pytest.raises(TechniqueError, match="weight 'w'.*holds 1 values"):
        QuantizeDynamic()(dataclasses.replace(variant, model=model.SerializeToString()))


@pytest.mark.parametrize("first", [QuantizeWeights(), QuantizeDynamic()])
def test_a_quantized_model_is_not_quantized_again(first):
    with pytest.raises(TechniqueError, match="quantized already"):
        QuantizeDynamic()(first(mlp()))


@pytest.mark.parametrize("config", [{"granularity": "per_group"}, {"convolutions": 1}, {"max_drop_pp": -1.0}])
def test_a_knob_out_of_range_names_itself(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        QuantizeDynamic(**config)


def test_the_same_input_gives_the_same_bytes_and_a_stop_is_heard():
    variant = mlp()
    dataset = data_for(variant)
    assert QuantizeDynamic()(variant, dataset).payload == QuantizeDynamic()(variant, dataset).payload

    def stop(fraction, message):
        raise Cancelled

    for given in (dataset, None):
        with pytest.raises(Cancelled):
            QuantizeDynamic()(variant, given, stop)
