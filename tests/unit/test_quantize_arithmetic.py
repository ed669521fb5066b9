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
from labkit.quantize.arithmetic.grid import Grid, integer_range, quantize_bias, weight_grid

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
    grid = weight_grid(weight, axis=0)
    np.testing.assert_allclose(grid.scale, np.float32([2 / 127, 0.5 / 127, 1.0]))
    assert grid.zero_point.tolist() == [0, 0, 0]
    assert grid.quantize(weight).tolist() == [[-127, 64], [127, 64], [0, 0]]


def test_one_loud_channel_silences_the_others_per_tensor_only():
    weight = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    weight[0] *= 1000
    for axis, quiet_survive in ((None, False), (0, True)):
        back = weight_grid(weight, axis).round(weight)
        assert bool(np.abs(back[1:]).max() > 0.5) is quiet_survive


def test_infinities_saturate():
    x = np.float32([-np.inf, np.inf])
    assert quantize(x, 0.1, 10).tolist() == [0, 255]


def test_a_bias_joins_the_products_in_their_own_unit():
    bias, scale = np.float32([1.0, -1.0, 0.0]), np.float32([1e-3, 1e-4, 1e-12])
    assert quantize_bias(bias, scale).tolist() == [1000, -10000, 0]
    assert quantize_bias(np.float32([1.0]), np.float32([1e-12])) == np.iinfo(np.int32).max


# --- groups, and fewer bits -----------------------------------------------------------------------

WHOLE = {
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
}


@functools.lru_cache(256)
def blocked(bits: int, signed: bool, axis: int, block_size: int) -> ort.InferenceSession:
    """QuantizeLinear and DequantizeLinear of x [R, C] in blocks; 4 bits are cast to 8 to be seen from outside."""
    whole, seen = WHOLE[bits, signed], WHOLE[8, signed]
    blocks = {"axis": axis, "block_size": block_size}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["zero"], ["zero_narrow"], to=whole),
            helper.make_node("QuantizeLinear", ["x", "scale", "zero_narrow"], ["narrow"], **blocks),
            helper.make_node("DequantizeLinear", ["narrow", "scale", "zero_narrow"], ["y"], **blocks),
            helper.make_node("Cast", ["narrow"], ["q"], to=seen),
        ],
        "reference",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info("zero", seen, [None, None]),
        ],
        [
            helper.make_tensor_value_info("q", seen, [None, None]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def grouped(random, bits, signed, axis, group_size):
    """A weight [R, C] and a grid for its groups, zero points anywhere; the last group may be short."""
    x = (random.standard_normal(random.integers(1, 20, 2)) * 10.0 ** random.integers(-3, 4)).astype(
        np.float32
    )
    shape = list(x.shape)
    shape[axis] = -(-shape[axis] // group_size)
    scale = (np.abs(x).max() / 2**bits * np.exp(random.uniform(-1, 1, shape))).astype(np.float32)
    smallest, largest = integer_range(bits, signed)
    return x, Grid(
        scale, random.integers(smallest, largest + 1, shape, np.int32), bits, signed, axis, group_size
    )


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from([8, 4]), st.booleans(), st.integers(0, 1), st.integers(2, 9))
def test_every_bit_of_a_grid_per_group_agrees_with_onnx_runtime(seed, bits, signed, axis, group_size):
    x, grid = grouped(np.random.default_rng(seed), bits, signed, axis, group_size)
    feeds = {"x": x, "scale": grid.scale, "zero": grid.zero_point.astype(np.int8 if signed else np.uint8)}
    q, y = blocked(bits, signed, axis, group_size).run(None, feeds)
    np.testing.assert_array_equal(grid.quantize(x), q)
    np.testing.assert_array_equal(grid.dequantize(q), y)
    np.testing.assert_array_equal(grid.round(x), y)


def test_groups_along_the_other_axis_would_be_noticed():
    x, grid = grouped(np.random.default_rng(0), 8, True, 1, 4)
    square = np.resize(x, (8, 8))
    along = Grid(np.resize(grid.scale, (8, 2)), np.zeros((8, 2), np.int32), 8, True, 1, 4)
    across = Grid(along.scale.T, along.zero_point.T, 8, True, 0, 4)
    feeds = {"x": square, "scale": along.scale, "zero": along.zero_point.astype(np.int8)}
    q, _ = blocked(8, True, 1, 4).run(None, feeds)
    assert (along.quantize(square) == q).all() and (across.quantize(square) != q).any()


@settings(max_examples=200, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans(), st.integers(0, 1), st.integers(2, 9))
def test_fewer_bits_are_a_part_of_the_same_grid(seed, bits, signed, axis, group_size):
    """With b bits, ONNX Runtime's 8-bit numbers are clamped to a shorter range, and mean the same."""
    x, grid = grouped(np.random.default_rng(seed), bits, signed, axis, group_size)
    feeds = {"x": x, "scale": grid.scale, "zero": grid.zero_point.astype(np.int8 if signed else np.uint8)}
    q, y = blocked(8, signed, axis, group_size).run(None, feeds)
    ours = grid.quantize(x)
    np.testing.assert_array_equal(ours, np.clip(q, *integer_range(bits, signed)))
    np.testing.assert_array_equal(grid.round(x)[ours == q], y[ours == q])


granularities = st.sampled_from([(None, 0), (0, 0), (1, 0), (-1, 0), (0, 3), (1, 4), (-1, 5), (1, 99)])


@given(seeds, st.integers(2, 8), granularities)
def test_a_weight_s_grid_covers_it_and_no_more(seed, bits, granularity):
    axis, group_size = granularity
    weight = np.random.default_rng(seed).standard_normal((6, 14)).astype(np.float32)
    grid = weight_grid(weight, axis, bits, group_size)
    q, largest = grid.quantize(weight), integer_range(bits, True)[1]
    error = np.abs(grid.round(weight).astype(np.float64) - weight)
    assert (error <= grid.spread(weight.shape) * 0.5001).all()
    assert np.abs(q).max() == largest, "the largest number of all lies on the end of its grid"
    assert grid.scale.size == {None: 1, 0: 6, 1: 14, -1: 14}[axis] if not group_size else True


@given(seeds, st.integers(2, 8))
def test_a_finer_granularity_never_costs_accuracy(seed, bits):
    """In the largest step: a group's is at most its channel's, which is at most the tensor's."""
    weight = np.random.default_rng(seed).standard_normal((6, 16)).astype(np.float32)
    every = ((None, bits), (0, bits), (1, bits, 4))
    tensor, channel, group = (weight_grid(weight, *each).spread(weight.shape) for each in every)
    assert (channel <= tensor).all() and (group <= channel).all()


def test_groups_are_counted_along_their_axis_and_a_short_one_is_not_diluted():
    weight = np.float32([[1, 2, 3, 4, 50], [6, 7, 8, 9, 100]])
    grid = weight_grid(weight, axis=1, bits=8, group_size=2)
    np.testing.assert_allclose(grid.scale * 127, [[2, 4, 50], [7, 9, 100]], rtol=1e-6)
    np.testing.assert_allclose(weight_grid(weight, 0, 8, 2).scale * 127, [[6, 7, 8, 9, 100]], rtol=1e-6)


def test_rounding_to_a_grid_twice_is_rounding_once():
    for granularity in ((None, 0), (0, 0), (1, 4)):
        weight = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
        grid = weight_grid(weight, granularity[0], 4, granularity[1])
        once = grid.round(weight)
        assert (once != weight).any()
        np.testing.assert_array_equal(grid.round(once), once)


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 8.0, None, "8"])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(ConfigError, match=r"2\.\.8"):
        choose_scale(0, 1, bits)


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1), (0, np.inf), (-np.inf, 0)])
def test_a_range_that_is_not_finite_is_refused(low, high):
    with pytest.raises(ConfigError, match="finite"):
        choose_scale(low, high)
