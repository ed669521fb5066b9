"""Integer arithmetic: every integer that ONNX Runtime makes of the same operator, and what is refused."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from labkit.environment import cpu_features
from labkit.errors import ConfigError, TensorError
from labkit.quantize.arithmetic.grid import Grid, dequantize, quantize
from labkit.quantize.arithmetic.integer import (
    dynamic_quantize,
    fixed_point,
    integer_add,
    integer_conv,
    integer_matmul,
    product_scale,
    requantize,
)

ONNX_TYPE = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int32): TensorProto.INT32,
}
SIGNED = {np.uint8: False, np.int8: True}
scales = st.floats(2.0**-12, 1.0, width=32).map(np.float32)
seeds = st.integers(0, 2**32 - 1)


@functools.lru_cache(4096)
def session(op_type, inputs, outputs, domain, attributes):
    """One operator as ONNX Runtime computes it. inputs: (dtype, rank) each; outputs: the dtypes."""
    names = [f"in{i}" for i in range(len(inputs))]
    results = [f"out{i}" for i in range(len(outputs))]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, results, domain=domain, **dict(attributes))],
        "one",
        [
            helper.make_tensor_value_info(name, ONNX_TYPE[np.dtype(kind)], [None] * rank)
            for name, (kind, rank) in zip(names, inputs, strict=True)
        ],
        [
            helper.make_tensor_value_info(name, ONNX_TYPE[np.dtype(kind)], None)
            for name, kind in zip(results, outputs, strict=True)
        ],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runtime(op_type, *arrays, outputs=(np.uint8,), domain="", **attributes):
    """Run one operator; returns its only output, or all of them."""
    arrays = [np.asarray(each) for each in arrays]
    shapes = tuple((each.dtype.type, each.ndim) for each in arrays)
    fixed = tuple((key, tuple(v) if isinstance(v, (list, tuple)) else v) for key, v in attributes.items())
    feeds = {f"in{i}": each for i, each in enumerate(arrays)}
    results = session(op_type, shapes, outputs, domain, fixed).run(None, feeds)
    return results[0] if len(results) == 1 else results


@functools.cache
def pairs_clip() -> bool:
    """Whether this processor's uint8 × int8 kernels clip pairs of products to int16 (no VNNI)."""
    a, b = np.full((1, 4), 255, np.uint8), np.full((4, 1), 127, np.int8)
    return runtime("MatMulInteger", a, b, outputs=(np.int32,)).item() != 4 * 255 * 127


def whole(random, kind, *shape, weight=False):
    """Numbers of 8 bits, the ends of the range among them; weights have 7 bits where more would clip."""
    limits = np.iinfo(kind)
    low, high = limits.min, limits.max
    if weight and kind is np.int8 and pairs_clip():
        low, high = -64, 63
    return (
        random.choice([low, high], shape) if random.random() < 0.1 else random.integers(low, high + 1, shape)
    )


def draw(random, kind, *shape, weight=False):
    return whole(random, kind, *shape, weight=weight).astype(kind)


# --- products -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from([np.uint8, np.int8]), st.sampled_from([np.uint8, np.int8]), st.booleans())
def test_a_product_of_matrices_is_the_runtime_s(seed, a_kind, b_kind, per_column):
    random = np.random.default_rng(seed)
    m, k, n = random.integers(1, 40, 3)
    a, b = draw(random, a_kind, m, k), draw(random, b_kind, k, n, weight=True)
    a_zero = draw(random, a_kind)
    b_zero = draw(random, b_kind, *([n] if per_column else []))
    expected = runtime("MatMulInteger", a, b, a_zero, b_zero, outputs=(np.int32,))
    np.testing.assert_array_equal(integer_matmul(a, b, a_zero, b_zero), expected)


@given(seeds)
def test_the_four_terms_are_the_sum_over_shifted_numbers(seed):
    random = np.random.default_rng(seed)
    a, b = draw(random, np.uint8, 2, 3, 50), draw(random, np.int8, 2, 50, 4)
    shifted = (a.astype(np.int64) - 7) @ (b.astype(np.int64) + 9)
    np.testing.assert_array_equal(integer_matmul(a, b, 7, -9), shifted)
    assert (integer_matmul(a, b, 7, 0) != shifted).any()


def test_sums_stay_within_int32_up_to_the_length_that_is_promised():
    k = (2**31 - 1) // (255 * 128)
    assert k == 65_793
    a, b = np.full((1, k), 255, np.uint8), np.full((k, 1), -128, np.int8)
    assert integer_matmul(a, b).item() == -255 * 128 * k


def test_beyond_int32_sums_wrap_around_as_the_runtime_s_do():
    a = np.full((1, 40_000), 255, np.uint8)
    expected = runtime("MatMulInteger", a, a.T, outputs=(np.int32,))
    assert integer_matmul(a, a.T).item() == expected.item() == 255 * 255 * 40_000 - 2**32


def test_without_vnni_pairs_of_products_are_clipped_and_seven_bits_are_safe():
    random = np.random.default_rng(0)
    a = random.choice([0, 255], (5, 32)).astype(np.uint8)
    b = random.choice([-128, 127], (32, 7)).astype(np.int8)
    products = a[:, :, None].astype(np.int32) * b
    clipped = np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1).sum(1)
    exact = integer_matmul(a, b)
    assert (clipped != exact).any()
    expected = runtime("MatMulInteger", a, b, outputs=(np.int32,))
    np.testing.assert_array_equal(expected, clipped if pairs_clip() else exact)
    seven = np.clip(b, -64, 63)
    np.testing.assert_array_equal(
        integer_matmul(a, seven), runtime("MatMulInteger", a, seven, outputs=(np.int32,))
    )


geometry = st.fixed_dictionaries(
    {
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "pads": st.tuples(*[st.integers(0, 3)] * 4),
        "dilations": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "group": st.integers(1, 3),
    }
)


def images(random, x_kind, w_kind, group, depthwise=False):
    inner, outer = (1, 1) if depthwise else random.integers(1, 5, 2)
    kernel = random.integers(1, 4, 2)
    x = draw(random, x_kind, random.integers(1, 3), inner * group, *random.integers(6, 10, 2))
    return x, draw(random, w_kind, outer * group, inner, *kernel, weight=True)


@settings(max_examples=200, deadline=None)
@given(seeds, geometry, st.booleans())
def test_a_convolution_is_the_runtime_s(seed, geometry, depthwise):
    random = np.random.default_rng(seed)
    x, w = images(random, np.uint8, np.uint8, geometry["group"], depthwise)
    x_zero, w_zero = draw(random, np.uint8), draw(random, np.uint8)
    expected = runtime("ConvInteger", x, w, x_zero, w_zero, outputs=(np.int32,), **geometry)
    np.testing.assert_array_equal(integer_conv(x, w, x_zero, w_zero, **geometry), expected)


def test_a_convolution_may_have_one_axis_or_three():
    random = np.random.default_rng(0)
    for space in ((20,), (5, 6, 7)):
        x, w = draw(random, np.uint8, 2, 3, *space), draw(random, np.uint8, 4, 3, *[3] * len(space))
        expected = runtime("ConvInteger", x, w, np.uint8(3), outputs=(np.int32,))
        np.testing.assert_array_equal(integer_conv(x, w, 3), expected)


def test_padding_with_0_instead_of_the_zero_point_would_be_noticed():
    random = np.random.default_rng(0)
    x, w = draw(random, np.uint8, 1, 2, 6, 6), draw(random, np.uint8, 3, 2, 3, 3)
    expected = runtime("ConvInteger", x, w, np.uint8(100), outputs=(np.int32,), pads=[1] * 4)
    np.testing.assert_array_equal(integer_conv(x, w, 100, pads=[1] * 4), expected)
    wrong = integer_conv(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]), w, 100)
    assert (wrong != expected).any() and (wrong == expected)[..., 1:-1, 1:-1].all()


# --- back to 8 bits -------------------------------------------------------------------------------


def layer_scales(random, outputs, terms):
    """Scales of input, weight ([outputs] or, by chance, one) and output: sums of so many terms spread over it."""
    x_scale, w_scale = (np.exp(random.uniform(-8, 0, n)).astype(np.float32) for n in ((), outputs))
    w_scale = w_scale if random.random() < 0.5 else w_scale.max()
    y_scale = x_scale * w_scale.max() * np.sqrt(terms) * np.exp(random.uniform(2, 6))
    return x_scale, w_scale, np.float32(y_scale)


KINDS = st.sampled_from([(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])


@settings(max_examples=200, deadline=None)
@given(seeds, KINDS)
def test_a_quantized_product_is_the_runtime_s(seed, kinds):
    kind, w_kind = kinds
    random = np.random.default_rng(seed)
    m, k, n = random.integers(1, 40, 3)
    x, w = draw(random, kind, m, k), draw(random, w_kind, k, n, weight=True)
    x_scale, w_scale, y_scale = layer_scales(random, n, k)
    x_zero, w_zero, y_zero = draw(random, kind), draw(random, w_kind, *w_scale.shape), draw(random, kind)
    given = (x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero)
    expected = runtime("QLinearMatMul", *given, outputs=(kind,))
    scale = product_scale(x_scale, w_scale, y_scale)
    ours = requantize(integer_matmul(x, w, x_zero, w_zero), scale, y_zero, SIGNED[kind])
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours, expected)


@settings(max_examples=300, deadline=None)
@given(seeds, geometry, KINDS, st.booleans())
def test_a_quantized_convolution_is_the_runtime_s(seed, geometry, kinds, depthwise):
    kind, w_kind = kinds
    random = np.random.default_rng(seed)
    x, w = images(random, kind, w_kind, geometry["group"], depthwise)
    x_scale, w_scale, y_scale = layer_scales(random, len(w), w[0].size)
    x_zero, w_zero, y_zero = draw(random, kind), draw(random, w_kind), draw(random, kind)
    bias = random.integers(-5000, 5000, len(w)).astype(np.int32)
    given = (x, x_scale, x_zero, w, w_scale, np.full_like(w_scale, w_zero, w_kind), y_scale, y_zero, bias)
    expected = runtime("QLinearConv", *given, outputs=(kind,), **geometry)
    sums = integer_conv(x, w, x_zero, w_zero, **geometry) + bias[:, None, None]
    scale = product_scale(x_scale, w_scale.reshape(-1, 1, 1), y_scale)
    np.testing.assert_array_equal(requantize(sums, scale, y_zero, SIGNED[kind]), expected)


def product_of_one(sums, scale):
    """QLinearMatMul with sums [N] as its inner products: x · 1, where sums are whole numbers of 8 bits."""
    one = np.ones((1, 1), np.int8)
    x = np.asarray(sums, np.uint8)[:, None]
    zeros = np.uint8(0), np.int8(0), np.uint8(0)
    given = (x, np.float32(scale), zeros[0], one, np.float32(1), zeros[1], np.float32(1), zeros[2])
    return runtime("QLinearMatMul", *given)[:, 0]


def test_ties_go_to_the_even_number_and_rounding_half_up_would_be_noticed(monkeypatch):
    sums = np.arange(200)
    expected = product_of_one(sums, 0.5)
    assert expected[:6].tolist() == [0, 0, 1, 2, 2, 2]
    np.testing.assert_array_equal(requantize(sums, 0.5, 0), expected)
    monkeypatch.setattr(np, "rint", lambda x: np.floor(x + 0.5))
    assert (requantize(sums, 0.5, 0) != expected).mean() == 0.25


def test_ties_are_settled_before_the_zero_point_is_added():
    assert requantize(np.int32([1, 3]), 0.5, 1).tolist() == [1, 3]
    assert np.rint(np.float32([1, 3]) * 0.5 + 1).tolist() == [2, 2], "after it, they would be others"


def test_another_order_of_the_scales_would_be_noticed():
    random = np.random.default_rng(0)
    x, w, y = np.exp(random.uniform(-8, 0, (3, 10_000))).astype(np.float32)
    assert 0.1 < np.mean(product_scale(x, w, y) != x * (w / y)) < 0.9


# --- QuantizeLinear and its dynamic kin -----------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(arrays(np.float32, st.integers(1, 70), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_dynamic_quantization_is_the_runtime_s(x):
    x[np.abs(x) < 2.0**-60] = 0
    q, scale, zero_point = runtime("DynamicQuantizeLinear", x, outputs=(np.uint8, np.float32, np.uint8))
    ours, grid = dynamic_quantize(x)
    assert (grid.scale, grid.zero_point) == (scale, zero_point)
    np.testing.assert_array_equal(ours, q)


@settings(max_examples=100, deadline=None)
@given(seeds, scales, st.sampled_from([np.uint8, np.int8]))
def test_floats_join_and_leave_the_integers_as_in_the_runtime(seed, scale, kind):
    random = np.random.default_rng(seed)
    x, zero_point = (random.standard_normal((5, 7)) * 50 * scale).astype(np.float32), draw(random, kind)
    q = quantize(x, scale, zero_point, signed=SIGNED[kind])
    np.testing.assert_array_equal(q, runtime("QuantizeLinear", x, scale, zero_point, outputs=(kind,)))
    back = runtime("DequantizeLinear", q, scale, zero_point, outputs=(np.float32,))
    np.testing.assert_array_equal(dequantize(q, scale, zero_point), back)


# --- sums of two tensors --------------------------------------------------------------------------


@pytest.mark.skipif(
    "avx2" not in cpu_features(), reason="another kernel, which rounds differently: see integer_add"
)
@settings(max_examples=300, deadline=None)
@given(seeds, st.tuples(scales, scales, scales), st.sampled_from([np.uint8, np.int8]))
def test_an_addition_is_the_runtime_s(seed, three_scales, kind):
    random = np.random.default_rng(seed)
    a, b = draw(random, kind, 3, 37), draw(random, kind, 3, 37)
    grids = [Grid(scale, draw(random, kind), signed=SIGNED[kind]) for scale in three_scales]
    (a_grid, b_grid, _), flat = grids, [each for grid in grids for each in (grid.scale, grid.zero_point)]
    expected = runtime("QLinearAdd", a, *flat[:2], b, *flat[2:], outputs=(kind,), domain="com.microsoft")
    np.testing.assert_array_equal(integer_add(a, a_grid, b, b_grid, grids[2]), expected)


def test_an_addition_in_another_order_would_be_noticed():
    random = np.random.default_rng(0)
    a, b = draw(random, np.uint8, 100_000), draw(random, np.uint8, 100_000)
    a_grid, b_grid, y_grid = (Grid(np.float32(s), np.int32(z)) for s, z in ((0.03, 7), (0.05, 9), (0.08, 3)))
    plain = y_grid.quantize(a_grid.dequantize(a) + b_grid.dequantize(b))
    off = np.abs(integer_add(a, a_grid, b, b_grid, y_grid) - plain.astype(int))
    assert off.max() == 1 and 0 < np.mean(off) < 0.2


# --- what is refused ------------------------------------------------------------------------------


def test_floats_are_refused():
    q = np.ones((2, 2), np.uint8)
    for bad in (q.astype(np.float32), q.astype(np.int32)):
        with pytest.raises(TensorError, match=f"{bad.dtype}: quantize it first"):
            integer_matmul(bad, q)
        with pytest.raises(TensorError, match="quantize it first"):
            integer_conv(q[None, None], bad[None, None])


def test_shapes_that_do_not_fit_are_refused():
    q = np.ones((1, 4, 5, 5), np.uint8)
    with pytest.raises(TensorError, match=r"\[3, 2\] and \[3, 2\]"):
        integer_matmul(np.ones((3, 2), np.uint8), np.ones((3, 2), np.uint8))
    with pytest.raises(TensorError, match="in 1 groups"):
        integer_conv(q, np.ones((3, 2, 3, 3), np.int8))
    with pytest.raises(TensorError, match=r"over \[7, 7\] does not fit into \[5, 5\]"):
        integer_conv(q, np.ones((3, 4, 7, 7), np.int8))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_is_none_is_refused(scale):
    for convert in (fixed_point, lambda each: requantize(np.int32([1]), each, 0)):
        with pytest.raises(ConfigError, match="above 0"):
            convert(np.float32([0.5, scale]))
