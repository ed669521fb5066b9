"""Calibrators: which range of an activation its few whole numbers shall cover. Each looks at one tensor as it passes.

    MinMax          everything seen. One outlier stretches the grid for all the others.
    MovingAverage   a running mean of each batch's least and largest value (Jacob et al. 2018, section 3).
    Percentile      gives up a chosen share of the outermost values: they saturate (Wu et al. 2020, section 3.2).
    Entropy         loses the least information, as the Kullback–Leibler divergence counts it (Migacz 2017).
    MeanSquaredError  leaves the least squared error, of rounding inside the range and of clipping outside it.

The wider the range, the coarser the grid: rounding costs more, clipping less. The last two search for the best
trade, and so must know the grid: its bits, and whether it is symmetric. They never see the values again: all that
is kept of them is one `Histogram`, whose size does not depend on how many there were.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from labkit.errors import ConfigError, DataError, nearest
from labkit.quantize.arithmetic.grid import Array, choose_scale, integer_range, quantize
from labkit.quantize.calibration.histogram import BINS, Histogram, Range

_LEAST_WEIGHT = 0.01
_HALVINGS = math.log2(BINS)  # a range shrunk further would lie within one bin


@dataclass
class Observer(ABC):
    """Watches one tensor: `observe` each batch, then ask for the `range`. Its state has a fixed size.

    bits, symmetric: the grid that the range is for; unsigned if asymmetric.
    Raises ConfigError for bits outside 2..8, and DataError for a range of no values.
    """

    bits: int = 8
    symmetric: bool = False
    histogram: Histogram = field(default_factory=Histogram, init=False, repr=False)

    def __post_init__(self) -> None:
        integer_range(self.bits, self.symmetric)

    def observe(self, x: Array) -> None:
        """Take in a batch of values [N, ...]; DataError if one is NaN or infinite."""
        self.histogram.add(x)

    def range(self) -> Range:
        """The range for all that was observed."""
        if not self.histogram.counts.size:
            raise DataError("no value was observed: there is no range to choose")
        return self._range()

    @abstractmethod
    def _range(self) -> Range: ...


class MinMax(Observer):
    """From the least to the largest value that was seen."""

    def _range(self) -> Range:
        return Range(self.histogram.low, self.histogram.high)


@dataclass
class MovingAverage(Observer):
    """A running mean of the batches' extremes, so that one batch with an outlier moves it only a little.

        low ← low + weight · (low of the batch − low)         weight = max(n / N, 0.01)

    n: samples in the batch, N: samples so far. It is the plain mean at first, and forgets slowly once a batch is
    less than a hundredth of all: Jacob et al. 2018 (section 3.1) have the second half alone, for long trainings.
    """

    _low: float = field(default=0.0, init=False, repr=False)
    _high: float = field(default=0.0, init=False, repr=False)
    _samples: int = field(default=0, init=False, repr=False)

    def observe(self, x: Array) -> None:
        """Take in a batch of values [N, ...]; DataError if one is NaN or infinite."""
        super().observe(x)
        if x.size:
            self._samples += len(x)
            weight = max(len(x) / self._samples, _LEAST_WEIGHT)
            self._low += weight * (float(x.min()) - self._low)
            self._high += weight * (float(x.max()) - self._high)

    def _range(self) -> Range:
        return Range(self._low, self._high)


@dataclass
class Percentile(Observer):
    """Keeps `percentile` % of the values: gives up the outermost, half of them at each end, to within one bin.

    For a symmetric grid the largest magnitudes are given up, whatever their sign. Bins are never split, so it keeps
    at least so many; 100 keeps everything.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"percentile={self.percentile!r} must be above 0 and at most 100 (%)")

    def _range(self) -> Range:
        counts, edges, seen = self.histogram.counts, self.histogram.edges, self.histogram
        allowed = round(counts.sum() * (100 - self.percentile) / 100, 6)  # 100 − 99.9 is a hair below 0.1
        if self.symmetric:
            nearest_first = np.argsort(np.abs(edges[:-1] + edges[1:]), kind="stable")
            kept = nearest_first[: len(counts) - _dropped(counts[nearest_first[::-1]], allowed)]
            reach = min(np.abs([edges[kept], edges[kept + 1]]).max(), max(-seen.low, seen.high))
            return Range(-float(reach), float(reach))
        low = edges[_dropped(counts, allowed / 2)]
        high = edges[len(counts) - _dropped(counts[::-1], allowed / 2)]
        return Range(max(float(low), seen.low), min(float(high), seen.high))


def _dropped(counts: Array, allowed: float) -> int:
    """How many bins from the start hold at most `allowed` values together."""
    return int(np.searchsorted(np.cumsum(counts), allowed, side="right"))


class Search(Observer):
    """A calibrator that tries ranges and keeps the one of least `loss`.

    Where one end decides (the grid is symmetric, or the other end is 0), it is shrunk towards 0 in steps of 4 %.
    Where two do, all pairs in steps of √2 are tried, and the best is refined in steps of 2^¼, 2^⅛, … 2^¹⁄₃₂, which is
    2 %. Of equal losses, the wider range wins.
    """

    _STEPS: ClassVar[tuple[float, ...]] = (1 / 4, 1 / 8, 1 / 16, 1 / 32)

    @abstractmethod
    def loss(self, range_: Range) -> float:
        """What it costs to use the grid for `range_`: 0 or more, infinite for a range that is out of question."""

    def _range(self) -> Range:
        low, high = min(self.histogram.low, 0.0), max(self.histogram.high, 0.0)
        if self.symmetric:
            low, high = -max(-low, high), max(-low, high)
        one_end = self.symmetric or not (low and high)
        coarse = np.arange(0, _HALVINGS, 1 / 16 if one_end else 1 / 2)
        best = self._best(low, high, coarse, coarse)
        for step in self._STEPS:
            finer = step * np.array([-1, 0, 1])
            best = self._best(low, high, *(np.maximum(each + finer, 0) for each in best))
        return self._shrunk(low, high, *best)

    def _best(self, low: float, high: float, lows: Array, highs: Array) -> tuple[float, float]:
        """Of all pairs of exponents the one whose range loses least."""
        if self.symmetric:
            pairs = list(zip(highs, highs, strict=True))
        else:
            pairs = [(a, b) for a in (lows if low else [0]) for b in (highs if high else [0])]
        return min(pairs, key=lambda pair: self.loss(self._shrunk(low, high, *pair)))

    @staticmethod
    def _shrunk(low: float, high: float, a: float, b: float) -> Range:
        return Range(float(low * 2.0**-a), float(high * 2.0**-b))

    def _grid(self, range_: Range) -> tuple[Array, Array]:
        return choose_scale(range_.low, range_.high, self.bits, self.symmetric, signed=self.symmetric)


class MeanSquaredError(Search):
    """The range whose grid leaves the least Σ (x − x̂)², of rounding and of clipping together: see `expected_error`.

    Banner, Nahshan and Soudry 2019 (section 3) do the same for a Gaussian; this is for what was really seen.
    """

    def loss(self, range_: Range) -> float:
        """The mean squared error."""
        return sum(expected_error(self.histogram, range_, self.bits, self.symmetric))


def expected_error(
    histogram: Histogram, range_: Range, bits: int = 8, symmetric: bool = False
) -> tuple[float, float]:
    """What the grid for `range_` makes of the values: (rounding, clipping), two mean squared errors.

    Values within a bin are taken as evenly spread. Then both have a closed form. With s = scale, and e(t) = t −
    (nearest number on the grid), the integral of e² from 0 to t, where k = round(t / s) and f = t / s − k, is

        s³ · (k / 12 + f³ / 3)          inside the grid: s²/12 for every whole step (Bennett 1948)
        … + (t − end)³ / 3              beyond an end of the grid, where all is clipped to it

    Raises ConfigError for bits outside 2..8.
    """
    smallest, largest = integer_range(bits, symmetric)
    grid = choose_scale(range_.low, range_.high, bits, symmetric, signed=symmetric)
    scale, zero_point = (float(each) for each in grid)
    edges, counts = histogram.edges, _counts_without_zeros(histogram)
    inside = np.clip(edges, scale * (smallest - zero_point), scale * (largest - zero_point))
    whole = np.rint(inside / scale)
    part = inside / scale - whole
    rounding = scale**3 * (whole / 12 + _cube(part) / 3)
    per_value = 1 / (histogram.width * int(histogram.counts.sum()))
    return (
        float(np.sum(counts * np.diff(rounding))) * per_value,
        float(np.sum(counts * np.diff(_cube(edges - inside) / 3))) * per_value,
    )


def mean_square(histogram: Histogram) -> float:
    """The mean of x², values within a bin being taken as evenly spread: what an error is held against."""
    integral = _cube(histogram.edges) / 3
    total = np.sum(_counts_without_zeros(histogram) * np.diff(integral))
    return float(total) / (histogram.width * int(histogram.counts.sum()))


def _counts_without_zeros(histogram: Histogram) -> Array:
    """The counts, less the values that are exactly 0: no grid loses anything of those."""
    counts = histogram.counts.copy()
    if histogram.zeros:
        counts[np.searchsorted(histogram.edges, 0, side="right") - 1] -= histogram.zeros
    return counts


def _cube(x: Array) -> Array:
    return x * x * x  # many times faster than x**3


class Entropy(Search):
    """The range that loses the least information: KL(P ‖ Q) = Σ p · log(p / q) (Migacz 2017).

    P is the histogram with all that the range cuts off piled onto its end bins, as saturation will do; Q what is
    left when the bins inside are merged into the grid's levels and each level is spread evenly again over those of
    its bins that P uses. What was cut off is missing in Q: that is the price of clipping. Exact zeros are left out,
    every grid has them. A bin that P uses and Q does not would cost infinitely much: Q gets one value there.

    Out of question are a range of fewer bins than the grid has levels, where the histogram cannot tell what is
    lost; and one that cuts off more than 2^−bits of the values, a level's fair share. The second limit is ours: the
    divergence takes the exact place of a value that comes very often (a constant background) for information, and
    would clip an eighth of all the others to keep it.
    """

    def loss(self, range_: Range) -> float:
        """KL(P ‖ Q) in nats."""
        edges, counts = self.histogram.edges, _counts_without_zeros(self.histogram)
        centres = (edges[:-1] + edges[1:]) / 2
        first, last = np.searchsorted(centres, [range_.low, range_.high])
        inside, below, above = counts[first:last], counts[:first].sum(), counts[last:].sum()
        too_narrow = range_.high - range_.low < 2**self.bits * self.histogram.width
        if too_narrow or below + above > counts.sum() / 2**self.bits or not inside.any():
            return math.inf
        p = inside.astype(np.float64)
        p[0] += below
        p[-1] += above
        used = p > 0
        levels = quantize(centres[first:last], *self._grid(range_), self.bits, self.symmetric).astype(np.intp)
        levels -= levels.min()
        mean = np.bincount(levels, inside) / np.maximum(np.bincount(levels, used), 1)
        p, q = p[used], np.maximum(mean[levels[used]], 1)
        return float(np.sum(p * np.log(p / q)) / p.sum() + math.log(q.sum() / p.sum()))


CALIBRATORS: Mapping[str, type[Observer]] = {
    "minmax": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": MeanSquaredError,
}


def make_observer(
    calibrator: str, percentile: float | None = None, bits: int = 8, symmetric: bool = False
) -> Observer:
    """An observer by its name in `CALIBRATORS`; `percentile` is for the one of that name, None its default.

    Raises ConfigError for an unknown name, for bits outside 2..8, and for a percentile below 100, which would have
    no effect, with any other calibrator.
    """
    if calibrator not in CALIBRATORS:
        raise ConfigError(f"unknown calibrator {calibrator!r}; {nearest(calibrator, CALIBRATORS)}")
    if percentile is None or (percentile == 100 and calibrator != "percentile"):
        return CALIBRATORS[calibrator](bits, symmetric)
    if calibrator != "percentile":
        raise ConfigError(
            f"percentile={percentile!r} means nothing to calibrator={calibrator!r}: give calibrator='percentile' "
            "with it, or leave it out"
        )
    return Percentile(bits, symmetric, percentile)
