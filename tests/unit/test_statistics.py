"""The statistics against scipy, the reference implementation, and against what an interval promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labkit.statistics import (
    Z95,
    mcnemar,
    mean_interval,
    paired_mean,
    percentile,
    ratio_interval,
    student_t95,
    support,
    wilson,
)


def outcomes(a: int, b: int, c: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers: both right a times, only the first b, only the second c, neither d."""
    first = np.repeat([True, True, False, False], [a, b, c, d])
    second = np.repeat([True, False, True, False], [a, b, c, d])
    return first, second


def test_z_is_the_normal_quantile() -> None:
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-12) == Z95


@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipys_wilson(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("degrees", [*range(1, 41), 59, 100, 299, 1000, 10_000])
def test_student_t_is_scipys(degrees: int) -> None:
    assert student_t95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-4)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_mcnemar_p_is_the_exact_binomial(a: int, b: int, c: int, d: int) -> None:
    paired = mcnemar(*outcomes(a, b, c, d))
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert paired.p_value == pytest.approx(expected, rel=1e-9)
    assert paired.difference == pytest.approx((c - b) / (a + b + c + d))


def test_mcnemar_p_survives_thousands_of_disagreements() -> None:
    paired = mcnemar(*outcomes(10_000, 4_000, 4_300, 10))
    assert paired.p_value == pytest.approx(stats.binomtest(4_000, 8_300, 0.5).pvalue, rel=1e-6)


def test_newcombe_gives_the_papers_example() -> None:
    """Newcombe 1998 (paired data), method 10, where 36, 12, 2 and 0 pairs are observed: 0.0569 to 0.3404."""
    low, high = mcnemar(*outcomes(36, 2, 12, 0)).ci95
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-4)


def newcombe_10(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """The interval for (a+b)/n − (a+c)/n as the paper writes it, with scipy's Wilson intervals."""
    n = a + b + c + d
    first = stats.binomtest(a + b, n).proportion_ci(0.95, method="wilson")
    second = stats.binomtest(a + c, n).proportion_ci(0.95, method="wilson")
    dl1, du1 = (a + b) / n - first.low, first.high - (a + b) / n
    dl2, du2 = (a + c) / n - second.low, second.high - (a + c) / n
    numerator = a * d - b * c
    if numerator > 0:
        numerator = max(numerator - n / 2, 0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = numerator / math.sqrt(margins) if margins else 0.0
    theta = (b - c) / n
    low = theta - math.sqrt(max(0.0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    return low, theta + math.sqrt(max(0.0, dl2**2 - 2 * phi * dl2 * du1 + du1**2))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_newcombe_is_the_papers_formula(a: int, b: int, c: int, d: int) -> None:
    assert mcnemar(*outcomes(a, c, b, d)).ci95 == pytest.approx(newcombe_10(a, b, c, d), abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_mcnemar_turned_round_is_its_negative(a: int, b: int, c: int, d: int) -> None:
    one, other = mcnemar(*outcomes(a, b, c, d)), mcnemar(*outcomes(a, c, b, d))
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-12)
    assert one.ci95[0] <= one.difference <= one.ci95[1]


def test_no_disagreement_among_450_still_leaves_an_interval() -> None:
    low, high = mcnemar(*outcomes(440, 0, 0, 10)).ci95
    assert low < -0.001 and high > 0.001


def test_newcombe_covers_the_true_difference() -> None:
    random = np.random.default_rng(0)
    truth, held, trials = 0.03, 0, 1000
    for _ in range(trials):
        both = random.random(450) < 0.90
        only = random.choice(3, 450, p=[0.6, 0.35, 0.05])  # of the rest: neither, second only, first only
        first = both | ((only == 2) & ~both)
        second = both | ((only == 1) & ~both)
        low, high = mcnemar(first, second).ci95
        held += low <= truth <= high
    assert held >= 0.93 * trials


@pytest.mark.parametrize("n", [2, 3, 12, 450])
def test_mean_interval_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 2.0, n)
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_mean_interval_of_one_value_is_infinite() -> None:
    assert mean_interval(np.array([3.0])) == (-math.inf, math.inf)


def test_paired_mean_agrees_with_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    first = random.normal(0, 1, 500)
    second = first + random.normal(0.05, 0.3, 500)
    paired, expected = paired_mean(first, second), stats.ttest_rel(second, first)
    assert paired.p_value == pytest.approx(expected.pvalue, rel=0.05)
    assert paired.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-4)


def test_ratio_interval_is_students_on_the_logarithms() -> None:
    logs = np.random.default_rng(2).normal(math.log(1.5), 0.1, 12)
    ratio, (low, high) = ratio_interval(logs)
    expected = stats.t.interval(0.95, 11, logs.mean(), stats.sem(logs))
    assert ratio == pytest.approx(stats.gmean(np.exp(logs)))
    assert (low, high) == pytest.approx(tuple(np.exp(expected)), rel=1e-5)


def test_ratio_interval_covers_a_known_ratio() -> None:
    random = np.random.default_rng(3)
    intervals = [ratio_interval(random.standard_t(4, 12) * 0.05 + math.log(1.05))[1] for _ in range(1000)]
    assert sum(low <= 1.05 <= high for low, high in intervals) >= 930


@pytest.mark.parametrize(("q", "least"), [(95, 59), (99, 299)])
def test_percentile_without_support_is_none(q: float, least: int) -> None:
    assert support(q) == least
    assert percentile(np.arange(least - 1.0), q) is None
    assert percentile(np.arange(float(least)), q) is not None


@given(st.lists(st.floats(0, 1e6), min_size=299, max_size=400), st.sampled_from([50, 95, 99]))
def test_percentile_is_a_value_that_was_seen(values: list[float], q: float) -> None:
    expected = np.percentile(values, q, method="inverted_cdf")
    assert percentile(values, q) == expected


def test_percentile_of_nothing_is_none() -> None:
    assert percentile([], 50) is None
