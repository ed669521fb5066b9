"""The small statistics that labkit's claims rest on, written out.

An accuracy without an interval is a rumour: 97.8 % of 450 images could be 96 % or 99 %. Two models that
saw the same images are compared on the images where they *differ*; all others say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """The difference between two models on the same samples: `difference` = second − first."""

    difference: float
    ci95: Interval
    p_value: float

    @property
    def verdict(self) -> str:
        """Higher, lower, or "no difference detected" where the interval holds zero."""
        if self.ci95[0] > 0:
            return "higher"
        return "lower" if self.ci95[1] < 0 else "no difference detected"


def wilson(successes: int, n: int) -> Interval:
    """The 95 % score interval for a proportion (Wilson 1927): sane at 0 %, at 100 % and for few samples."""
    if n == 0:
        return (0.0, 1.0)
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return (low, high)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two classifiers on the same n samples (McNemar 1947, exact).

    first, second: [n] whether each was right. Only the samples on which exactly one of them is right carry
    information: b (first only) and c (second only). p-value: two-sided binomial test of b against b + c.
    Interval for the difference of accuracies: Newcombe's square-and-add of the two Wilson intervals with the
    correlation of the pairs (Newcombe 1998, method 10), which does not shrink to nothing at b = c = 0.
    """
    n = len(first)
    a = int(np.sum(first & second))
    b = int(np.sum(first & ~second))
    c = int(np.sum(~first & second))
    d = n - a - b - c
    return Paired((c - b) / n, _newcombe(a, b, c, d), _binomial_two_sided(b, b + c))


def _newcombe(a: int, b: int, c: int, d: int) -> Interval:
    n = a + b + c + d
    p1, p2 = (a + c) / n, (a + b) / n
    (l1, u1), (l2, u2) = wilson(a + c, n), wilson(a + b, n)
    spread = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    phi = 0.0
    if spread > 0:
        cross = a * d - b * c
        phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / spread
    low = math.sqrt(max(0.0, (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2))
    high = math.sqrt(max(0.0, (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2))
    return (p1 - p2 - low, p1 - p2 + high)


def _binomial_two_sided(k: int, n: int) -> float:
    """P(a fair coin is at least as lopsided as k heads in n throws), summed in logarithms."""
    if n == 0:
        return 1.0
    extreme = min(k, n - k)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(extreme + 1)]
    tail = math.fsum(math.exp(value - n * math.log(2)) for value in logs)
    return min(1.0, 2 * tail)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """The 95 % Student interval for a mean; values [n]. Infinite for a single value."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return (-math.inf, math.inf)
    half = student_t95(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return (mean - half, mean + half)


def paired_mean(first: NDArray[np.float64], second: NDArray[np.float64]) -> Paired:
    """The mean of second − first with its Student interval; first, second: [n] on the same samples.

    The p-value is the normal tail of the t statistic (the samples here number in the hundreds).
    """
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    low, high = mean_interval(differences)
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    p_value = math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else float(mean == 0)
    return Paired(mean, (low, high), p_value)


def ratio_interval(logs: NDArray[np.float64]) -> tuple[float, Interval]:
    """The geometric mean of paired ratios with its 95 % interval; logs: [blocks] of log(a) − log(b).

    Each block holds both sides measured within the same moments, so whatever slowed the machine then
    slowed both and cancels. Student's t with blocks − 1 degrees of freedom.
    """
    low, high = mean_interval(logs)
    return math.exp(float(np.mean(logs))), (math.exp(low), math.exp(high))


def percentile(values: Sequence[float] | NDArray[np.float64], q: float) -> float | None:
    """The q-th percentile (nearest rank, so a value that was really seen), or None without support.

    An upper percentile needs enough samples to be told from the maximum: with n samples the chance that even
    the largest lies above the true q-th percentile is 1 − (q/100)^n; labkit asks for 95 %. That is p95 from
    59 runs and p99 from 299.
    """
    n = len(values)
    if n == 0 or (q > 50 and n < support(q)):
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[max(0, math.ceil(q / 100 * n) - 1)])


def support(q: float) -> int:
    """The least number of runs from which labkit reports the q-th percentile: 59 for 95, 299 for 99."""
    return math.ceil(math.log(0.05) / math.log(q / 100))


def student_t95(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: t such that a 95 % two-sided interval has half-width t·s/√n.

    Cornish–Fisher expansion around the normal quantile (Abramowitz & Stegun 26.7.5), exact values for
    few degrees of freedom, where the expansion is coarse.
    """
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469}
    if degrees in exact:
        return exact[degrees]
    z, v = Z95, float(degrees)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / v + g2 / v**2 + g3 / v**3 + g4 / v**4
