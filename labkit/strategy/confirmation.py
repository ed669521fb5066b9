"""Confirm: what was chosen on `validation` is held against its limits once more, on `test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.measure import Comparison, Measurement
from labkit.strategy.decision import first_wall
from labkit.strategy.requirement import Requirement

_DROPS = ("max_accuracy_drop_pp", "max_accuracy_drop_upper_pp", "max_quality_drop")


@dataclass(frozen=True)
class Confirmation:
    """Whether the chosen one keeps its limits: `status` is "confirmed", "not resolved" or "broken"."""

    status: str
    reason: str
    comparison: Comparison

    @property
    def measured(self) -> Measurement:
        """The chosen one's record on test."""
        return self.comparison.measurements[-1]


def confirm(comparison: Comparison, requirement: Requirement) -> Confirmation:
    """Hold the last record of `comparison`, measured on `test`, against the limits that it was chosen by.

    A loss of quality is "broken" only where its whole interval lies beyond the limit; where the interval holds the
    limit, or a time lies beyond it that was within it on validation, these samples do not tell: "not resolved".
    """
    record = comparison.measurements[-1]
    wall = first_wall(comparison, record, requirement)
    if wall is None:
        reason = f"every limit holds on {record.n_samples:,} test samples"
        return Confirmation("confirmed", reason + _not_ruled_out(comparison, record, requirement), comparison)
    interval = _interval(comparison, record, wall.broke)
    if interval is None or wall.limit is None or interval[0] <= wall.limit <= interval[1]:
        around = "" if interval is None else f", 95 % interval [{interval[0]:.2f}, {interval[1]:.2f}]"
        reason = f"on {record.n_samples:,} test samples {wall.reason}{around}: too close to tell"
        return Confirmation("not resolved", reason, comparison)
    return Confirmation("broken", f"on {record.n_samples:,} test samples {wall.reason}", comparison)


def _not_ruled_out(comparison: Comparison, record: Measurement, requirement: Requirement) -> str:
    """What the limits on quality allow, but so few samples cannot vouch for; "" if they can."""
    for field, limit in requirement.limits.given().items():
        interval = _interval(comparison, record, field)
        if interval is None:
            continue
        worst = interval[1] if field.startswith("max_") else interval[0]
        if worst > limit if field.startswith("max_") else worst < limit:
            return f", though so few cannot rule out {worst:.3g} where {field} is {limit:g}"
    return ""


def _interval(comparison: Comparison, record: Measurement, field: str) -> Sequence[float] | None:
    """The interval of the figure that `field` limits; None for figures that have none."""
    if field == "min_accuracy":
        return record.accuracy_ci95
    pair = None if record.key == comparison.baseline_key else comparison.pair(record.key)
    if pair is None or field not in _DROPS:
        return None
    return pair.quality_drop_ci95 if field == "max_quality_drop" else pair.accuracy_drop_pp_ci95
