"""Whole networks in whole numbers: each integer as in ONNX Runtime, and typed refusals of the rest."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from labkit.convert import ExportOnnx
from labkit.environment import cpu_features
from labkit.errors import TechniqueError, TensorError
from labkit.quantize import QuantizeInt8
from labkit.quantize.arithmetic import integer_only
from labkit.quantize.arithmetic.integer_only import run_integer_only
from labkit.train import fresh_variant
from labkit.zoo import load_model
from tests.graphs import build, data_for, node, normal, weight

CLIPS = "avx2" in cpu_features() and not {"avx512_vnni", "avx_vnni"} & set(cpu_features())
needs_exact_products = pytest.mark.skipif(
    CLIPS, reason="without VNNI the runtime clips pairs of uint8 × int8 products: see test_quantize_integer"
)


@pytest.fixture(scope="module")
def float_lenet(digits):
    return ExportOnnx()(load_model("lenet5@digits"), digits)


@pytest.fixture(scope="module")
def lenet(float_lenet, digits):
    return QuantizeInt8()(float_lenet, digits)


@pytest.fixture(scope="module")
def resnet(digits):
    return QuantizeInt8()(ExportOnnx()(load_model("resnet20@digits"), digits), digits)


def runtime(variant, feeds, tmp_path):
    """ONNX Runtime's own integers: (name → array of each rounded tensor and the outputs, operators it ran)."""
    model = onnx.load_model_from_string(variant.payload)
    rounded = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in rounded)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    return dict(zip(names, session.run(names, feeds), strict=True)), ran


def images(variant, digits, count=16):
    return variant.feeds(digits.split("test").take(slice(0, count)).inputs)


@needs_exact_products
@pytest.mark.parametrize(
    ("name", "operators"),
    [("lenet", {"QLinearConv": 2, "QGemm": 2}), ("resnet", {"QLinearConv": 21, "QLinearAdd": 9, "QGemm": 1})],
)
def test_every_integer_inside_is_the_runtime_s(name, operators, digits, request, tmp_path):
    variant = request.getfixturevalue(name)
    feeds = images(variant, digits)
    expected, ran = runtime(variant, feeds, tmp_path)
    assert {kind: ran[kind] for kind in operators} == operators, "the runtime must compute in integers"
    ours = run_integer_only(variant, feeds)
    assert len(expected) >= 5
    for tensor, values in expected.items():
        np.testing.assert_array_equal(ours[tensor], values, tensor)
        assert ours[tensor].dtype == values.dtype
    assert sum(values.dtype == np.float32 for values in expected.values()) == 1, "the logits, and no other"


def test_nothing_inside_is_a_float(lenet, digits):
    computed = run_integer_only(lenet, images(lenet, digits, 2), without_floats=True)
    kinds = Counter(values.dtype.name for name, values in computed.items() if name != "logits")
    assert kinds.keys() == {"uint8", "int32"} and computed["logits"].dtype == np.float32


@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_without_any_float_in_between_the_answers_stay(name, digits, request):
    variant = request.getfixturevalue(name)
    feeds = images(variant, digits)
    one, other = (run_integer_only(variant, feeds, without_floats=each) for each in (False, True))
    off = {key: np.abs(one[key].astype(int) - other[key]) for key in one if one[key].dtype == np.uint8}
    share = sum(np.count_nonzero(each) for each in off.values()) / sum(each.size for each in off.values())
    print(
        f"{name}: {share:.1e} of the 8-bit numbers differ, by {max(each.max() for each in off.values())} at most"
    )
    assert share < 5e-3 and max(each.max() for each in off.values()) <= 4
    np.testing.assert_array_equal(one["logits"].argmax(1), other["logits"].argmax(1))


def test_another_rounding_would_be_noticed(lenet, digits, monkeypatch, tmp_path):
    def half_up(sums, scale, zero_point, signed):
        return np.clip(np.floor(sums * scale + 0.5001) + zero_point, 0, 255).astype(np.uint8)

    feeds = images(lenet, digits)
    expected, _ = runtime(lenet, feeds, tmp_path)
    monkeypatch.setattr(integer_only, "requantize", half_up)
    ours = run_integer_only(lenet, feeds)
    assert any((ours[name] != values).any() for name, values in expected.items())


@needs_exact_products
def test_one_scale_for_a_whole_weight_is_the_runtime_s_too(float_lenet, digits, tmp_path):
    variant = QuantizeInt8(granularity="per_tensor")(float_lenet, digits)
    feeds = images(variant, digits, 2)
    ours = run_integer_only(variant, feeds)
    for tensor, values in runtime(variant, feeds, tmp_path)[0].items():
        np.testing.assert_array_equal(ours[tensor], values, tensor)


@needs_exact_products
def test_depthwise_layers_and_relu6_are_the_runtime_s_too(digits, tmp_path):
    fresh = ExportOnnx()(fresh_variant({"architecture": "mobilenet"}, digits), digits)
    variant = QuantizeInt8(max_drop_pp=100.0, calibration_samples=8)(fresh, digits)
    feeds = images(variant, digits, 2)
    expected, ran = runtime(variant, feeds, tmp_path)
    assert ran["QLinearConv"] >= 10
    ours = run_integer_only(variant, feeds)
    for tensor, values in expected.items():
        np.testing.assert_array_equal(ours[tensor], values, tensor)


@needs_exact_products
@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_that_an_operator_works_out_itself_is_the_runtime_s_too(automatic, tmp_path):
    nodes = [
        node("Conv", "x w1 b1", "c1", auto_pad=automatic, strides=[2, 3]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p", auto_pad=automatic, kernel_shape=[2, 2], strides=[1, 2]),
        node("Conv", "p w2 b2", "c2"),
        node("Relu", "c2", "r2"),
        node("GlobalAveragePool", "r2", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3 b3", "y"),
    ]
    constants = [weight("w1", 8, 3, 4, 3), weight("b1", 8), weight("w2", 8, 8, 1, 1), weight("b2", 8)]
    model = build(nodes, [*constants, weight("w3", 8, 10), weight("b3", 10)])
    variant = QuantizeInt8(max_drop_pp=100)(model, data_for(model, 32))
    feeds = {"x": normal("x", 2, 3, 16, 16)}
    ours = run_integer_only(variant, feeds)
    for name in ("r1/quantized", "r2/quantized"):
        np.testing.assert_array_equal(ours[name], runtime(variant, feeds, tmp_path)[0][name], name)


def test_a_zero_point_that_is_left_out_is_zero(lenet, digits):
    def leave_out(graph):
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for each in graph.node:
            if "Linear" in each.op_type and not constants[each.input[2]].any():
                del each.input[2:]

    short, feeds = changed(lenet, leave_out), images(lenet, digits, 2)
    nodes = onnx.load_model_from_string(short.payload).graph.node
    kinds = {each.op_type for each in nodes if "Linear" in each.op_type and len(each.input) == 2}
    assert kinds == {"QuantizeLinear", "DequantizeLinear"}, "there must be something to leave out"
    expected = run_integer_only(lenet, feeds)
    for name, values in run_integer_only(short, feeds).items():
        np.testing.assert_array_equal(values, expected[name], name)


# --- what is refused ------------------------------------------------------------------------------


def changed(variant, change):
    model = onnx.load_model_from_string(variant.payload)
    change(model.graph)
    return dataclasses.replace(variant, model=model.SerializeToString())


def test_a_float_model_is_refused(float_lenet, digits):
    with pytest.raises(TechniqueError, match=r"not quantized ONNX: apply labkit\.QuantizeInt8"):
        run_integer_only(float_lenet, images(float_lenet, digits, 1))


def test_feeds_that_do_not_fit_are_refused(lenet):
    with pytest.raises(TensorError, match="image"):
        run_integer_only(lenet, {"image": np.zeros((1, 1, 32, 32), np.float64)})


def test_an_operator_without_integer_arithmetic_is_refused_by_name(lenet, digits):
    def sigmoid(graph):
        next(node for node in graph.node if node.op_type == "Relu").op_type = "Sigmoid"

    with pytest.raises(TechniqueError, match="Sigmoid .* cannot be run .*Conv, Gemm"):
        run_integer_only(changed(lenet, sigmoid), images(lenet, digits, 1))


def test_a_layer_that_stayed_float_is_refused_by_name(lenet, digits):
    def float_input(graph):
        next(node for node in graph.node if node.op_type == "Conv").input[0] = "image"

    with pytest.raises(TechniqueError, match="Conv .*its input is in floats"):
        run_integer_only(changed(lenet, float_input), images(lenet, digits, 1))


def test_a_weight_in_floats_is_refused_by_name(lenet, digits):
    def float_weight(graph):
        weights = np.zeros((20, 1, 5, 5), np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, "loose"))
        next(node for node in graph.node if node.op_type == "Conv").input[1] = "loose"

    with pytest.raises(TechniqueError, match="Conv .*its weight is in floats"):
        run_integer_only(changed(lenet, float_weight), images(lenet, digits, 1))


def test_a_bias_in_another_unit_is_refused(lenet, digits):
    def other_unit(graph):
        stored = next(t for t in graph.initializer if t.name.endswith("bias/scale"))
        stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * 2, stored.name))

    with pytest.raises(TechniqueError, match="its bias is in another unit"):
        run_integer_only(changed(lenet, other_unit), images(lenet, digits, 1))


@pytest.mark.parametrize(
    ("kind", "name", "value", "match"),
    [
        ("MaxPool", "ceil_mode", 1, "rounds its size up"),
        ("Gemm", "alpha", 2.0, "scales or transposes"),
    ],
)
def test_an_attribute_that_is_not_handled_is_refused(kind, name, value, match, lenet, digits):
    def set_attribute(graph):
        node = next(node for node in graph.node if node.op_type == kind)
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    with pytest.raises(TechniqueError, match=match):
        run_integer_only(changed(lenet, set_attribute), images(lenet, digits, 1))
