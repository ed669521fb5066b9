"""float16 and bfloat16 from float32, bit for bit as numpy and torch have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labkit.quantize.arithmetic.floats import BFLOAT16, FLOAT16, FLOAT32

FORMATS = pytest.mark.parametrize("format_", [FLOAT16, BFLOAT16], ids=lambda each: each.name)
patterns = arrays(np.uint32, st.integers(1, 60), elements=st.integers(0, 2**32 - 1))


def reference(format_, x):
    """The bits that numpy or torch make of x."""
    if format_ is BFLOAT16:
        return torch.from_numpy(x.copy()).to(torch.bfloat16).view(torch.uint16).numpy().astype(np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(np.float16).view(np.uint16).astype(np.uint32)


def back(format_, bits):
    """The float32 that numpy or torch make of bits."""
    narrow = bits.astype(np.uint16)
    if format_ is BFLOAT16:
        return torch.from_numpy(narrow).view(torch.bfloat16).float().numpy()
    with np.errstate(invalid="ignore"):
        return narrow.view(np.float16).astype(np.float32)


def agree(format_, x):
    """Every bit equal, but for NaN: their other bits differ from processor to processor."""
    ours, theirs, nan = format_.encode(x), reference(format_, x), np.isnan(x)
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    assert np.isnan(back(format_, ours[nan])).all()
    np.testing.assert_array_equal(ours[nan] >> 15, x[nan].view(np.uint32) >> 31, "a NaN keeps its sign")


@FORMATS
@given(patterns)
def test_every_bit_pattern_rounds_as_in_numpy_and_torch(format_, pattern):
    agree(format_, pattern.view(np.float32))


@FORMATS
def test_a_million_patterns_round_as_in_numpy_and_torch(format_):
    agree(format_, np.random.default_rng(0).integers(0, 2**32, 1_000_000, np.uint32).view(np.float32))


@FORMATS
def test_all_that_lies_at_or_beside_a_tie_rounds_as_in_numpy_and_torch(format_):
    """Every number of the format, the middle above it, and float32's neighbours of both."""
    numbers = back(format_, np.arange(2**16))
    numbers = numbers[np.isfinite(numbers)].astype(np.float64)
    middles = numbers + np.sign(numbers) * format_.step(numbers.astype(np.float32)) / 2
    with np.errstate(over="ignore"):
        points = np.concatenate([numbers, middles]).astype(np.float32).view(np.uint32)
    agree(
        format_, (points[:, None] + np.array([-1, 0, 1], np.int64)).ravel().astype(np.uint32).view(np.float32)
    )


@FORMATS
def test_all_65536_codes_come_back_exactly(format_):
    bits = np.arange(2**16)
    x = format_.decode(bits)
    np.testing.assert_array_equal(x, back(format_, bits))
    np.testing.assert_array_equal(np.signbit(x), bits >= 2**15)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(format_.encode(x)[finite], bits[finite])


def test_cutting_bits_off_instead_of_rounding_would_be_noticed():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    cut = x.view(np.uint32) >> 16
    off = cut != BFLOAT16.encode(x)
    assert 0.4 < off.mean() < 0.6
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(cut, reference(BFLOAT16, x))


def test_ties_go_to_the_number_whose_last_bit_is_0():
    x = np.float32([1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256])
    assert BFLOAT16.round(x).tolist() == [1.0, 1 + 4 / 256, -1.0]
    assert FLOAT16.round(np.float32([2049, 2051])).tolist() == [2048, 2052]


def test_the_ends_of_the_formats():
    assert (FLOAT16.largest, FLOAT16.smallest) == (65504.0, 2.0**-24)
    assert BFLOAT16.largest == torch.finfo(torch.bfloat16).max and BFLOAT16.smallest == 2.0**-133
    assert (FLOAT16.bits, BFLOAT16.bits, FLOAT32.bits) == (16, 16, 32)
    edge = np.float32(
        [65519, 65520, -65520, 2.0**-25, np.nextafter(np.float32(2.0**-25), np.float32(1)), -1e-30]
    )
    assert FLOAT16.round(edge).tolist() == [65504, np.inf, -np.inf, 0, 2.0**-24, 0]
    assert np.signbit(FLOAT16.round(edge))[-1], "even a number too small keeps its sign"
    assert BFLOAT16.round(np.float32([3.4e38])).tolist() == [np.inf], "float32 reaches a little further"


@given(patterns)
def test_a_step_is_the_distance_to_the_next_number(pattern):
    x = pattern.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.abs(x.astype(np.float16))
        expected = np.spacing(half)
    expected[np.isinf(half)] = np.nan
    top = half == np.finfo(np.float16).max  # numpy looks for the next, which is infinite
    np.testing.assert_array_equal(FLOAT16.step(x)[~top], expected.astype(np.float32)[~top])
    x = np.abs(x[np.isfinite(x)])
    numbers = torch.from_numpy(x.copy()).to(torch.bfloat16)
    codes = numbers.view(torch.uint16).numpy().astype(np.int64)
    inner = codes < BFLOAT16.infinity - 1
    above = back(BFLOAT16, codes[inner] + 1).astype(np.float64)
    np.testing.assert_array_equal(BFLOAT16.step(x)[inner], above - numbers.float().numpy()[inner])


def test_float16_is_finer_and_bfloat16_reaches_further():
    x = np.float32([0.001, 1.0, 1000.0])
    np.testing.assert_array_equal(BFLOAT16.step(x) / FLOAT16.step(x), 8)
    np.testing.assert_array_equal(FLOAT32.step(x), np.spacing(x))
    assert FLOAT16.step(np.float32([1e-6])) > BFLOAT16.step(np.float32([1e-6])), "float16 is subnormal here"
    assert np.isnan(FLOAT16.step(np.float32([1e5, np.nan]))).all()


def test_float32_stays_as_it_is():
    x = np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32).view(np.float32)
    np.testing.assert_array_equal(FLOAT32.round(x), x)
    np.testing.assert_array_equal(FLOAT32.encode(x)[~np.isnan(x)], x.view(np.uint32)[~np.isnan(x)])


def test_any_shape_comes_back_in_its_own():
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        x = np.ones(shape, np.float32)
        assert BFLOAT16.encode(x).shape == BFLOAT16.round(x).shape == BFLOAT16.step(x).shape == shape
    strided = np.arange(20, dtype=np.float32).reshape(4, 5)[::2, ::2]
    np.testing.assert_array_equal(FLOAT16.round(strided), strided)
