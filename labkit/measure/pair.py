"""A pair: one candidate's record held against the baseline's, each difference with its interval and its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labkit.statistics import Interval


@dataclass(frozen=True)
class Pair:
    """One candidate against the baseline. What could not be told is None, and `null_reasons` says why.

    speedup: baseline's time per sample / candidate's, so above 1 is faster. quality_drop: positive is worse,
    in the metric's own unit; accuracy_drop_pp is the same in percentage points, where the metric is accuracy.
    Verdicts are "better", "worse" or "no difference detected", by whether the interval excludes 1 or 0.
    """

    key: str
    baseline_key: str
    speedup: float | None
    speedup_ci95: Interval | None
    speed_verdict: str | None
    quality_metric: str | None
    quality_drop: float | None
    quality_drop_ci95: Interval | None
    p_value: float | None
    quality_verdict: str | None
    null_reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def accuracy_drop_pp(self) -> float | None:
        """The drop in percentage points; None where quality is not an accuracy."""
        return (
            100 * self.quality_drop
            if self.quality_metric == "accuracy" and self.quality_drop is not None
            else None
        )

    @property
    def accuracy_drop_pp_ci95(self) -> Interval | None:
        """Its interval."""
        if self.quality_metric != "accuracy" or self.quality_drop_ci95 is None:
            return None
        low, high = self.quality_drop_ci95
        return (100 * low, 100 * high)
