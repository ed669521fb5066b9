"""The arithmetic of quantization, bit for bit against ONNX Runtime's, and its promises."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from labkit.errors import ConfigError
from labkit.quantize import choose_scale, dequantize, quantize
from labkit.quantize.arithmetic import integer_range, quantize_bias, weight_scale

finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
vectors = arrays(np.float32, st.integers(1, 40), elements=finite)
scales = st.floats(2.0**-60, 2.0**60, width=32)


@functools.cache
def reference(signed: bool, per_channel: bool) -> ort.InferenceSession:
    """QuantizeLinear and DequantizeLinear of x [C, N] as ONNX Runtime computes them."""
    whole = TensorProto.INT8 if signed else TensorProto.UINT8
    inner = ["C"] if per_channel else []
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=0),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=0),
        ],
        "reference",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["C", "N"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, inner),
            helper.make_tensor_value_info("zero", whole, inner),
        ],
        [
            helper.make_tensor_value_info("q", whole, ["C", "N"]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["C", "N"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def agree(x, scale, zero_point, signed, axis):
    zero = np.asarray(zero_point, np.int8 if signed else np.uint8)
    feeds = {"x": x, "scale": np.asarray(scale, np.float32), "zero": zero}
    q, y = reference(signed, axis is not None).run(None, feeds)
    ours = quantize(x, scale, zero_point, 8, signed, axis)
    assert ours.dtype == q.dtype
    np.testing.assert_array_equal(ours, q)
    np.testing.assert_array_equal(dequantize(ours, scale, zero_point, axis), y)


@settings(max_examples=300)
@given(vectors, scales, st.integers(0, 255), st.booleans())
def test_every_bit_agrees_with_onnx_runtime_per_tensor(x, scale, zero_point, signed):
    agree(x[None], np.float32(scale), zero_point - 128 * signed, signed, None)


@settings(max_examples=200)
@given(st.data(), st.integers(1, 5), st.booleans())
def test_every_bit_agrees_with_onnx_runtime_per_channel(data, channels, signed):
    x = data.draw(arrays(np.float32, (channels, 7), elements=finite))
    scale = np.array(data.draw(st.lists(scales, min_size=channels, max_size=channels)), np.float32)
    zero_point = data.draw(arrays(np.int32, channels, elements=st.integers(0, 255))) - 128 * signed
    agree(x, scale, zero_point, signed, 0)


@pytest.mark.parametrize("signed", [False, True])
def test_ties_go_to_the_even_number_as_in_onnx_runtime(signed):
    x = np.arange(-20, 20, 0.5, dtype=np.float32)[None]
    agree(x, np.float32(1), 0, signed, None)
    assert quantize(np.float32([0.5, 1.5, 2.5]), 1.0, 0).tolist() == [0, 2, 2]


def test_rounding_half_away_from_zero_would_be_noticed(monkeypatch):
    monkeypatch.setattr(np, "rint", lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5))
    with pytest.raises(AssertionError):
        agree(np.float32([[0.5, 2.5]]), np.float32(1), 0, False, None)


@given(vectors, st.integers(2, 8), st.booleans(), st.booleans())
def test_what_lies_in_the_range_comes_back_within_one_step(x, bits, symmetric, signed):
    low, high = x.min(), x.max()
    scale, zero_point = choose_scale(low, high, bits, symmetric, signed)
    q = quantize(x, scale, zero_point, bits, signed)
    smallest, largest = integer_range(bits, signed)
    assert smallest <= q.min() and q.max() <= largest
    error = np.abs(dequantize(q, scale, zero_point).astype(np.float64) - x)
    assert error.max() <= float(scale) * 1.0001


@given(finite, finite, st.integers(2, 8), st.booleans(), st.booleans())
def test_zero_is_always_exact(a, b, bits, symmetric, signed):
    scale, zero_point = choose_scale(min(a, b), max(a, b), bits, symmetric, signed)
    zero = np.zeros(1, np.float32)
    assert dequantize(quantize(zero, scale, zero_point, bits, signed), scale, zero_point)[0] == 0
    assert scale > 0 and np.isfinite(scale)


def test_a_relu_s_range_uses_the_whole_grid():
    scale, zero_point = choose_scale(0.0, 5.1)
    assert (round(float(scale), 4), int(zero_point)) == (0.02, 0)
    half, middle = choose_scale(0.0, 5.1, symmetric=True)
    assert float(half) == pytest.approx(2 * float(scale), rel=0.01) and middle == 128


def test_symmetric_signed_weights_use_minus_127_to_127():
    weight = np.float32([[-2.0, 1.0], [0.5, 0.25], [0.0, 0.0]])
    scale, zero_point = weight_scale(weight, axis=0)
    np.testing.assert_allclose(scale, np.float32([2 / 127, 0.5 / 127, 1.0]))
    assert zero_point.tolist() == [0, 0, 0]
    assert quantize(weight, scale, zero_point, signed=True, axis=0).tolist() == [
        [-127, 64],
        [127, 64],
        [0, 0],
    ]


def test_one_loud_channel_silences_the_others_per_tensor_only():
    weight = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    weight[0] *= 1000
    for axis, quiet_survive in ((None, False), (0, True)):
        grid = weight_scale(weight, axis)
        back = dequantize(quantize(weight, *grid, signed=True, axis=axis), *grid, axis)
        assert bool(np.abs(back[1:]).max() > 0.5) is quiet_survive


def test_infinities_saturate():
    x = np.float32([-np.inf, np.inf])
    assert quantize(x, 0.1, 10).tolist() == [0, 255]


def test_a_bias_joins_the_products_in_their_own_unit():
    bias, scale = np.float32([1.0, -1.0, 0.0]), np.float32([1e-3, 1e-4, 1e-12])
    assert quantize_bias(bias, scale).tolist() == [1000, -10000, 0]
    assert quantize_bias(np.float32([1.0]), np.float32([1e-12])) == np.iinfo(np.int32).max


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 8.0, None, "8"])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(ConfigError, match=r"2\.\.8"):
        choose_scale(0, 1, bits)


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1), (0, np.inf), (-np.inf, 0)])
def test_a_range_that_is_not_finite_is_refused(low, high):
    with pytest.raises(ConfigError, match="finite"):
        choose_scale(low, high)
