"""Calibrators: one pass, a fixed size, and the range that a slow exact search would choose."""

from __future__ import annotations

import math
import pickle
from random import Random

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labkit.errors import ConfigError, DataError
from labkit.quantize import choose_scale, dequantize, quantize
from labkit.quantize.calibration.histogram import Histogram, Range
from labkit.quantize.calibration.observers import (
    CALIBRATORS,
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    make_observer,
)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays(np.float32, st.integers(1, 60), elements=finite)
every_calibrator = pytest.mark.parametrize("name", CALIBRATORS)
grids = pytest.mark.parametrize(
    ("bits", "symmetric"), [(8, False), (8, True), (4, False), (4, True), (2, True)]
)


def random(seed=0):
    return np.random.default_rng(seed)


def observed(observer, *batches):
    for batch in batches:
        observer.observe(np.asarray(batch, np.float32))
    return observer


def error(x, range_, bits, symmetric):
    """The mean squared error of rounding `x` itself to the grid for a range."""
    grid = choose_scale(range_.low, range_.high, bits, symmetric, symmetric)
    back = dequantize(quantize(x, *grid, bits, symmetric), *grid)
    return float(np.mean(np.square(x.astype(np.float64) - back)))


def samples_of(kind, count=4000):
    draw = random(1)
    x = {
        "normal": lambda: draw.standard_normal(count),
        "relu": lambda: np.maximum(draw.standard_normal(count), 0),
        "laplace": lambda: draw.laplace(size=count),
        "skewed": lambda: np.concatenate(
            [draw.exponential(1, count), -0.2 * draw.exponential(1, count // 4)]
        ),
        "far from 0": lambda: 5 + draw.standard_normal(count),
        "negative": lambda: -np.maximum(draw.standard_normal(count), 0),
    }[kind]()
    return x.astype(np.float32)


KINDS = ("normal", "relu", "laplace", "skewed", "far from 0", "negative")


# --- the histogram ----------------------------------------------------------------------------------


def histogram_of(batches, bins=16):
    histogram = Histogram(bins)
    for batch in batches:
        histogram.add(batch)
    return histogram


@example(np.array([0, 1e-3, 1e-30], np.float32), Random(0), [1])
@given(vectors, st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=4))
def test_the_counts_are_the_same_in_whatever_order_and_batches_the_values_come(x, shuffler, cuts):
    order = list(range(len(x)))
    shuffler.shuffle(order)
    one, other = histogram_of([x]), histogram_of(np.split(x[order], sorted(cuts)))
    assert one.counts.tolist() == other.counts.tolist()
    assert one.edges.tolist() == other.edges.tolist()
    assert (one.low, one.high, one.zeros) == (other.low, other.high, other.zeros)


def test_one_that_stretches_its_bins_to_fit_would_depend_on_the_order():
    """The negative control: move the counts of old bins into those that their centres fall into."""

    def stretched(batches):
        counts, edges = np.histogram(batches[0], 16)
        for batch in batches[1:]:
            centres = (edges[1:] + edges[:-1]) / 2
            reach = min(edges[0], batch.min()), max(edges[-1], batch.max())
            moved, edges = np.histogram(centres, 16, reach, weights=counts)
            counts = moved + np.histogram(batch, edges)[0]
        return counts.tolist()

    batches = [random(seed).normal(0, 1 + seed, 100).astype(np.float32) for seed in range(4)]
    assert stretched(batches) != stretched(batches[::-1])
    assert histogram_of(batches).counts.tolist() == histogram_of(batches[::-1]).counts.tolist()


@given(st.lists(vectors, min_size=1, max_size=4))
def test_every_value_is_counted_in_its_own_bin(batches):
    found, x = histogram_of(batches), np.concatenate(batches).astype(np.float64)
    place = np.floor(x / found.width) - np.floor(x.min() / found.width)
    assert found.counts.tolist() == np.bincount(place.astype(int)).tolist()
    assert found.edges[0] <= x.min() < found.edges[1] and found.edges[-2] <= x.max() < found.edges[-1]
    assert found.zeros == np.count_nonzero(x == 0)


@given(vectors)
def test_the_bins_are_as_narrow_as_their_number_allows(x):
    found = histogram_of([x])
    low, high = min(float(x.min()), 0), max(float(x.max()), 0)

    def needed(width):
        return math.floor(high / width) - math.floor(low / width) + 1

    assert needed(found.width) <= 16
    assume(found.width > 2.0**-149)
    assert needed(found.width / 2) > 16


@given(vectors, finite, finite)
def test_the_share_outside_is_right_to_within_the_bins_of_the_ends(x, a, b):
    range_, found = Range(min(a, b, 0.0), max(a, b, 0.0)), histogram_of([x])
    x = x.astype(np.float64)
    certain = np.mean((x < range_.low - found.width) | (x > range_.high + found.width))
    possible = np.mean((x < range_.low + found.width) | (x > range_.high - found.width))
    assert certain - 1e-9 <= found.share_outside(range_) <= possible + 1e-9
    assert found.share_outside(Range(found.low, found.high)) == 0


# --- each calibrator against the slow way -----------------------------------------------------------


@given(st.lists(vectors, min_size=1, max_size=4))
def test_minmax_keeps_the_extremes_of_all_batches(batches):
    x = np.concatenate(batches)
    assert observed(MinMax(), *batches).range() == Range(float(x.min()), float(x.max()))


def test_the_moving_average_is_the_mean_at_first_and_forgets_slowly_later():
    batches = random().standard_normal((50, 8, 30)).astype(np.float32)
    expected = Range(float(batches.min((1, 2)).mean()), float(batches.max((1, 2)).mean()))
    found = observed(MovingAverage(), *batches).range()
    assert found.low == pytest.approx(expected.low) and found.high == pytest.approx(expected.high)
    many = observed(MovingAverage(), *[[0.0]] * 1000, *[[1.0]] * 100).range()
    assert many.high == pytest.approx(1 - 0.99**100)
    assert many.high > 3 * 100 / 1100, "a plain mean would not have forgotten"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9])
def test_a_percentile_agrees_with_sorting_all_values_within_a_bin(kind, percentile):
    x = samples_of(kind)
    ordered, magnitudes, share = np.sort(x), np.sort(np.abs(x)), round(len(x) * (100 - percentile) / 100, 6)
    asymmetric, symmetric = (observed(Percentile(8, each, percentile), x) for each in (False, True))
    low, high = ordered[int(share / 2)], ordered[-1 - int(share / 2)]
    reach = magnitudes[-1 - int(share)]
    width = asymmetric.histogram.width
    assert abs(asymmetric.range().low - low) <= width and abs(asymmetric.range().high - high) <= width
    assert symmetric.range().high == -symmetric.range().low == pytest.approx(reach, abs=width)
    for found in asymmetric.range(), symmetric.range():
        assert np.mean((x >= found.low) & (x <= found.high)) >= percentile / 100 - 1e-9


@given(vectors, st.booleans())
def test_the_hundredth_percentile_is_minmax(x, symmetric):
    found, seen = observed(Percentile(8, symmetric, 100.0), x).range(), observed(MinMax(), x).range()
    reach = max(-seen.low, seen.high, 0.0)
    assert found == (Range(-reach, reach) if symmetric else seen)


@grids
@pytest.mark.parametrize("kind", KINDS)
def test_the_squared_error_is_that_of_values_even_within_their_bins(kind, bits, symmetric):
    observer = observed(MeanSquaredError(bits, symmetric), samples_of(kind, 300))
    histogram, fine = observer.histogram, (np.arange(200) + 0.5) / 200
    spread = (histogram.edges[:-1, None] + fine * histogram.width)[histogram.counts > 0]
    holds_zero = (histogram.edges[:-1] <= 0) & (histogram.edges[1:] > 0)
    weights = (histogram.counts - holds_zero * histogram.zeros)[histogram.counts > 0]
    for low, high in ((-3.0, 4.0), (-0.5, 1.5), (0.0, 2.0)):
        grid = choose_scale(low, high, bits, symmetric, symmetric)
        back = dequantize(quantize(spread, *grid, bits, symmetric), *grid)
        expected = np.dot(weights, np.square(spread - back).mean(1)) / histogram.counts.sum()
        assert observer.loss(Range(low, high)) == pytest.approx(expected, rel=2e-3)


@grids
@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_as_good_as_trying_every_range_on_the_values_themselves(kind, bits, symmetric):
    x = samples_of(kind)
    low, high = min(float(x.min()), 0), max(float(x.max()), 0)
    shrunk = np.geomspace(0.05, 1, 40)
    if symmetric:
        tried = [Range(-max(-low, high) * a, max(-low, high) * a) for a in shrunk]
    else:
        tried = [
            Range(low * a, high * b) for a in (shrunk if low else [1]) for b in (shrunk if high else [1])
        ]
    best = min(error(x, range_, bits, symmetric) for range_ in tried)
    assert error(x, observed(MeanSquaredError(bits, symmetric), x).range(), bits, symmetric) <= 1.06 * best
    if bits < 8:
        assert error(x, observed(MinMax(), x).range(), bits, symmetric) > 1.06 * best, "the negative control"


def divergence(histogram, range_, bits, symmetric, most_cut=1.0):
    """KL(P ‖ Q) bin by bin, as Migacz 2017 tells it; infinite if more than `most_cut` of the values are cut off."""
    bins = [
        ((left + right) / 2, float(count) - (histogram.zeros if left <= 0 < right else 0))
        for left, right, count in zip(
            histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True
        )
    ]
    inside = [(centre, count) for centre, count in bins if range_.low <= centre < range_.high]
    p = [count for _, count in inside]
    p[0] += sum(count for centre, count in bins if centre < range_.low)
    p[-1] += sum(count for centre, count in bins if centre >= range_.high)
    if sum(p) - sum(count for _, count in inside) > sum(p) * most_cut:
        return math.inf
    levels: dict[int, list[int]] = {}
    for index, (centre, _) in enumerate(inside):
        grid = choose_scale(range_.low, range_.high, bits, symmetric, symmetric)
        levels.setdefault(int(quantize(np.array(centre), *grid, bits, symmetric)), []).append(index)
    q = [0.0] * len(p)
    for members in levels.values():
        used = [index for index in members if p[index] > 0]
        for index in used:
            q[index] = max(sum(inside[member][1] for member in members) / len(used), 1.0)
    whole_p, whole_q = sum(p), sum(q)
    return sum(a / whole_p * math.log((a / whole_p) / (b / whole_q)) for a, b in zip(p, q, strict=True) if a)


@grids
@pytest.mark.parametrize("kind", ["normal", "relu"])
def test_the_divergence_is_that_of_the_slow_way(kind, bits, symmetric):
    observer = observed(Entropy(bits, symmetric), samples_of(kind))
    for high in (4.0, 3.0, 2.0, 1.0):
        range_ = Range(-high if symmetric else -2.5, high)
        expected = divergence(observer.histogram, range_, bits, symmetric, 2**-bits)
        assert observer.loss(range_) == pytest.approx(expected, rel=1e-9)
    width = observer.histogram.width
    assert math.isinf(observer.loss(Range(0.0, (2**bits - 1) * width))), "fewer bins than levels"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["relu", "laplace", "skewed"])
def test_entropy_chooses_about_the_least_divergence_of_all_thresholds(kind, bits):
    x, reach = np.append(samples_of(kind), 30.0), 30.0
    observer = observed(Entropy(bits, symmetric=True), x)
    losses = [observer.loss(Range(-high, high)) for high in np.geomspace(0.05 * reach, reach, 500)]
    assert observer.loss(observer.range()) <= 1.1 * min(losses)
    assert max(loss for loss in losses if math.isfinite(loss)) > 1.3 * min(losses), "the negative control"


def test_exact_zeros_cost_nothing_and_change_no_choice():
    x = np.maximum(samples_of("normal"), 0)
    with_zeros, without = np.concatenate([x, np.zeros(50_000, np.float32)]), x[x > 0]
    for kind in MeanSquaredError, Entropy:
        assert observed(kind(4), with_zeros).range() == observed(kind(4), without).range()


def test_a_value_that_comes_very_often_does_not_make_entropy_clip_the_others():
    """A constant background: the divergence alone would keep its exact place and cut an eighth of the rest."""
    draw = random(2)
    x = np.abs(draw.standard_normal(40_000))
    x = np.concatenate([x, np.repeat(draw.uniform(0.05, 0.3, 3), 50_000)])
    observer = observed(Entropy(), x)
    chosen, narrow = observer.range(), Range(0.0, 0.5)
    assert observer.histogram.share_outside(chosen) <= 1 / 256 and np.mean(x > narrow.high) > 0.1
    alone = [divergence(observer.histogram, each, 8, False) for each in (chosen, narrow)]
    assert alone[1] < alone[0], "the negative control"


# --- what they are for ------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_outlier_stretches_minmax_and_no_other(symmetric):
    x = random().standard_normal((100, 1000)).astype(np.float32)
    x[60, 0] = 40
    high = {name: observed(make_observer(name, None, 4, symmetric), *x).range().high for name in CALIBRATORS}
    assert high.pop("minmax") == 40
    assert all(1 < each < 8 for each in high.values()), high
    x[60, 0] = 0
    assert observed(MinMax(), *x).range().high < 8, "without the outlier minmax is no worse"


@pytest.mark.parametrize("name", ["mse", "entropy"])
def test_fewer_bits_give_up_more_of_the_outermost_values(name):
    x = samples_of("laplace", 50_000)
    reach = [observed(make_observer(name, None, bits), x).range().high for bits in (8, 6, 4, 2)]
    assert reach == sorted(reach, reverse=True) and reach[-1] < 0.7 * reach[0]


@every_calibrator
def test_what_is_kept_does_not_grow_with_what_was_seen(name):
    observer = make_observer(name)
    sizes = []
    for _ in range(40):
        observer.observe(random().standard_normal((32, 1000)).astype(np.float32))
        sizes.append(len(pickle.dumps(observer)))
    assert max(sizes) < 2 * 4096 * 8 and sizes[-1] - sizes[0] < 100


@every_calibrator
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_is_chosen_for_every_grid(name, bits, symmetric):
    found = observed(make_observer(name, None, bits, symmetric), samples_of("skewed", 500)).range()
    assert found.low <= 0 < found.high and math.isfinite(error(samples_of("skewed"), found, bits, symmetric))


# --- input that is of no use ------------------------------------------------------------------------


@every_calibrator
def test_a_range_of_nothing_is_refused(name):
    with pytest.raises(DataError, match="no value was observed"):
        observed(make_observer(name), np.zeros((0, 4))).range()


@every_calibrator
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(name, bad):
    with pytest.raises(DataError, match="NaN or infinite"):
        observed(make_observer(name), [1.0, bad, 2.0])


@every_calibrator
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 3.0, -7.5, 3e38, -3e38])
def test_one_value_over_and_over_gets_a_range_that_holds_it(name, symmetric, value):
    x = np.full((3, 5), value, np.float32)
    found = observed(make_observer(name, None, 8, symmetric), x).range()
    step = choose_scale(found.low, found.high, 8, symmetric, symmetric)[0]
    assert math.sqrt(error(x, found, 8, symmetric)) <= max(step / 2, 0.03 * abs(value))


@given(st.sampled_from(sorted(CALIBRATORS)), vectors, st.sampled_from([2, 4, 8]), st.booleans())
def test_any_finite_values_get_a_range_within_what_was_seen(name, x, bits, symmetric):
    found = observed(make_observer(name, None, bits, symmetric), x).range()
    low, high = min(float(x.min()), 0), max(float(x.max()), 0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    assert low <= found.low <= found.high <= high


def test_unknown_names_and_settings_are_refused_with_the_fix():
    with pytest.raises(ConfigError, match="unknown calibrator 'entropie'; did you mean 'entropy'"):
        make_observer("entropie")
    with pytest.raises(
        ConfigError, match="percentile=99.9 means nothing to calibrator='mse': give calibrator="
    ):
        make_observer("mse", 99.9)
    with pytest.raises(ConfigError, match="bits=9 must be"):
        make_observer("mse", bits=9)
    for percentile in (0.0, -1.0, 100.1, math.nan):
        with pytest.raises(ConfigError, match="percentile=.* must be above 0"):
            make_observer("percentile", percentile)
