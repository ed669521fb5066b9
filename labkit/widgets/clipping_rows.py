"""What every calibrator makes of one tensor, and what each threshold would: the clipping explorer's figures.

    seen = watch(activations(variant, model, ["relu_3"], samples, silent))
    sweep = sweep_clipping(seen["relu_3"], bits=4)

All arithmetic is `labkit.quantize.calibration.observers`', and all of it on a histogram: the values are
never seen again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.errors import DataError
from labkit.plots import table_html
from labkit.quantize.arithmetic.grid import Array
from labkit.quantize.calibration.histogram import Histogram, Range
from labkit.quantize.calibration.observers import (
    CALIBRATORS,
    Observer,
    expected_error,
    make_observer,
    mean_square,
)
from labkit.quantize.noise import snr_db
from labkit.widgets.catalogue import text

Seen = Mapping[str, Observer]
CLIPPING_COLUMNS = ("calibrator", "low", "high", "clip_rate", "rounding", "clipping", "snr_db")
_SHARES = tuple(percent / 100 for percent in range(1, 101))


@dataclass(frozen=True)
class Cut:
    """A range, and what the grid for it costs.

    `clip_rate` is the share of values outside it. `rounding` and `clipping` are mean squared errors, as shares of the
    values' mean square; `snr_db` is what both together leave.
    """

    range: Range
    clip_rate: float
    rounding: float
    clipping: float

    @property
    def error(self) -> float:
        """Rounding and clipping together."""
        return self.rounding + self.clipping

    @property
    def snr_db(self) -> float:
        """The signal-to-noise ratio to expect."""
        return snr_db(1.0, self.error)


@dataclass(frozen=True, eq=False)
class ClippingSweep:
    """One tensor on grids of so many bits: each calibrator's choice, and all shares of the full range, 1 to 100 %."""

    histogram: Histogram
    bits: int
    symmetric: bool
    chosen: Mapping[str, Cut]
    curve: Mapping[float, Cut]

    @property
    def best(self) -> float:
        """The share of the full range that leaves the least error."""
        return min(self.curve, key=lambda share: self.curve[share].error)

    def at(self, share: float) -> Cut:
        """The cut that keeps about this share of the full range, 0..1; the nearest in hundredths."""
        return self.curve[min(self.curve, key=lambda each: abs(each - share))]


def watch(batches: Iterable[Mapping[str, Array]]) -> dict[str, dict[str, Observer]]:
    """Tensor → calibrator → its observer, after one pass over batches of name → values [N, ...].

    `labkit.quantize.calibration.calibrate.activations` yields such batches; for a weight, `[{"conv1.weight": weight}]`
    is one.
    Raises DataError where a value is NaN or infinite.
    """
    seen: dict[str, dict[str, Observer]] = {}
    for batch in batches:
        for tensor, values in batch.items():
            observers = seen.setdefault(tensor, {name: make_observer(name) for name in CALIBRATORS})
            for observer in observers.values():
                observer.observe(values)
    return seen


def power(seen: Seen) -> float:
    """The mean square of one tensor of `watch`; DataError if all its values are 0, and there is nothing to clip."""
    signal = mean_square(next(iter(seen.values())).histogram)
    if not signal:
        raise DataError("every value of a tensor is 0: there is nothing to clip; leave it out")
    return signal


def sweep_clipping(seen: Seen, bits: int = 8, symmetric: bool = False) -> ClippingSweep:
    """Every calibrator's choice, and every threshold, for one tensor of `watch` on a grid of so many bits.

    Raises ConfigError for bits outside 2..8, DataError if all values are 0.
    """
    histogram, signal = next(iter(seen.values())).histogram, power(seen)

    def cut(range_: Range) -> Cut:
        reach = max(-range_.low, range_.high)
        held = Range(-reach, reach) if symmetric else range_
        rounding, clipping = expected_error(histogram, held, bits, symmetric)
        return Cut(held, histogram.share_outside(held), rounding / signal, clipping / signal)

    def choose(observer: Observer) -> Cut:
        asked = copy.copy(observer)  # of the same histogram, for another grid
        asked.bits, asked.symmetric = bits, symmetric
        return cut(asked.range())

    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    return ClippingSweep(
        histogram,
        bits,
        symmetric,
        {name: choose(observer) for name, observer in seen.items()},
        {share: cut(Range(low * share, high * share)) for share in _SHARES},
    )


def clipping_table(sweep: ClippingSweep, share: float = 1.0) -> str:
    """An HTML table with CLIPPING_COLUMNS: each calibrator, the threshold at `share`, and the best of all."""
    named = {
        **sweep.chosen,
        text("clipping.yours", share=share): sweep.at(share),
        text("clipping.best", share=sweep.best): sweep.at(sweep.best),
    }
    return table_html([_row(name, cut) for name, cut in named.items()], CLIPPING_COLUMNS)


def clipping_says(sweep: ClippingSweep, share: float) -> str:
    """Where `share` stands, in one sentence."""
    yours, best = sweep.at(share), sweep.at(sweep.best)
    return text(
        "clipping.says",
        **(vars(yours) | {"snr_db": yours.snr_db, "best_snr_db": best.snr_db}),
        share=share,
        bits=sweep.bits,
        best=sweep.best,
    )


def _row(name: str, cut: Cut) -> dict[str, Any]:
    figures = {"clip_rate": f"{cut.clip_rate:.3%}", "rounding": cut.rounding, "clipping": cut.clipping}
    return {"calibrator": name, "low": cut.range.low, "high": cut.range.high, **figures, "snr_db": cut.snr_db}
