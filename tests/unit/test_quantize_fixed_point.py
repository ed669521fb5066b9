"""Requantization without floats: against exact fractions, gemmlowp's two steps, and the way through float32."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labkit.errors import ConfigError
from labkit.quantize.arithmetic.integer import fixed_point, requantize, requantize_fixed_point


@given(st.floats(2.0**-32, 2.0**30, exclude_max=True, width=32).map(np.float32))
def test_fixed_point_loses_nothing_of_a_float32(scale):
    multiplier, shift = fixed_point(scale)
    assert 2**30 <= multiplier < 2**31
    assert Fraction(int(multiplier)) / 2**31 / Fraction(2) ** int(shift) == Fraction(float(scale))


some_sums = arrays(np.int32, 50, elements=st.integers(-(2**31), 2**31 - 1) | st.integers(-3000, 3000))


def worst_error(q, sums, scale, zero_point, low):
    """The distance of q from the exact result, in steps of the grid, without any rounding."""
    exact = [Fraction(float(scale)) * total + zero_point for total in sums.tolist()]
    return max(abs(x - min(max(y, low), low + 255)) for x, y in zip(q.tolist(), exact, strict=True))


@given(some_sums, st.floats(2.0**-32, 4.0, width=32).map(np.float32), st.integers(0, 255), st.booleans())
def test_fixed_point_finds_a_nearest_number(sums, scale, zero_point, signed):
    low = -128 * signed
    multiplier, shift = fixed_point(scale)
    once = requantize_fixed_point(sums, multiplier, shift, zero_point + low, signed)
    assert worst_error(once, sums, scale, zero_point + low, low) <= 0.5
    twice = requantize_fixed_point(sums, multiplier, shift, zero_point + low, signed, twice=True)
    allowed = Fraction(1, 2) + (Fraction(1, 2 ** (int(shift) + 1)) if shift > 0 else 0)
    assert worst_error(twice, sums, scale, zero_point + low, low) <= allowed


def test_fixed_point_has_its_own_way_with_ties():
    sums, half = np.int32([-3, -1, 1, 3, 5]), fixed_point(0.5)
    assert requantize(sums, 0.5, 0, True).tolist() == [-2, 0, 0, 2, 2]
    assert requantize_fixed_point(sums, *half, 0, True).tolist() == [-1, 0, 1, 2, 3]
    quarter = fixed_point(0.25)
    assert requantize_fixed_point(sums, *quarter, 0, True).tolist() == [-1, 0, 0, 1, 1]
    assert requantize_fixed_point(sums, *quarter, 0, True, twice=True).tolist() == [-1, 0, 1, 1, 2]


def test_a_scale_too_small_for_any_sum_gives_the_zero_point():
    sums = np.int32([2**31 - 1, -(2**31), 0])
    for twice in (False, True):
        assert requantize_fixed_point(sums, *fixed_point(2.0**-40), 7, twice=twice).tolist() == [7, 7, 7]


def gemmlowp(x, multiplier, shift):
    """gemmlowp's two steps, written after its description in whole numbers of Python, for shift ≥ 0."""
    product = x * multiplier
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    upper = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    magnitude = (2 * abs(upper) + 2**shift) // 2 ** (shift + 1)
    return magnitude if upper >= 0 else -magnitude


@given(some_sums, st.floats(2.0**-20, 0.75, width=32).map(np.float32))
def test_rounding_twice_is_what_gemmlowp_does(sums, scale):
    multiplier, shift = fixed_point(scale)
    ours = requantize_fixed_point(sums, multiplier, shift, 0, True, twice=True)
    theirs = [gemmlowp(x, int(multiplier), int(shift)) for x in sums.tolist()]
    np.testing.assert_array_equal(ours, np.clip(theirs, -128, 127))


def test_fixed_point_agrees_with_float_but_for_rare_neighbours():
    """Sums and scales as layers have them, each sum inside the output's range."""
    random = np.random.default_rng(0)
    scale = np.exp(random.uniform(np.log(2.0**-14), np.log(2.0**-4), (1000, 1))).astype(np.float32)
    sums = (random.uniform(-128, 127, (1000, 1000)) / scale).astype(np.int32)
    float_way = requantize(sums, scale, 0, True).astype(int)
    shares = []
    for twice in (False, True):
        off = np.abs(float_way - requantize_fixed_point(sums, *fixed_point(scale), 0, True, twice))
        shares.append(np.mean(off != 0))
        assert off.max() <= 1
    print(
        f"of {sums.size:,} sums, rounded once {shares[0]:.1e} differ from float, rounded twice {shares[1]:.1e}"
    )
    assert shares[0] < 1e-5 and 1e-3 < shares[1] < 1e-2


def test_a_scale_too_large_for_a_shift_is_refused():
    with pytest.raises(ConfigError, match=r"below 2\^30"):
        fixed_point(2.0**30)
