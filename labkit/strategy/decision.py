"""Choose: a pure function from measured candidates and a requirement to a Decision with its reasons.

A speed counts as what the interleaved blocks say: the baseline's figure times the paired ratio. A median of its own
carries whatever slowed the machine while it was taken; the ratio does not.

Every candidate that was not taken gets one sentence: the first wall it hits, with its figure and the limit, or, where
it meets them all, by how much the chosen one is better. The constraint that *binds* is the wall that keeps the best of
the rejected ones out: relax that one first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.doors import door
from labkit.errors import ConfigError
from labkit.measure import Comparison, Measurement
from labkit.strategy.requirement import OBJECTIVES, Requirement

_SPEEDS = ("throughput_samples_per_s", "latency_p50_ms")
_UNITS = {"_ms": "ms", "_bytes": "bytes", "_per_s": "/s", "_pp": "points"}


@dataclass(frozen=True)
class Rejection:
    """Why a candidate was not taken: `broke` is the field of the requirement, or "objective" if it was only beaten."""

    key: str
    broke: str
    value: float | None
    limit: float | None
    reason: str


@dataclass(frozen=True)
class Decision:
    """What to run and why. `chosen` is None where nothing met the requirement; `advice` then says what to relax."""

    requirement: Requirement
    chosen: Measurement | None
    binding: str
    rejected: tuple[Rejection, ...]
    advice: str
    platform: str = "local"
    method: str = "direct"

    def to_json(self) -> dict[str, Any]:
        """As plain data: the chosen figures are what was predicted from `validation`."""
        chosen = self.chosen
        return {
            "requirement": self.requirement.to_json(),
            "platform": self.platform,
            "method": self.method,
            "chosen": None if chosen is None else chosen.key,
            "variant": None if chosen is None else chosen.variant,
            "format": None if chosen is None else chosen.format,
            "runtime": None if chosen is None else chosen.runtime,
            "precision": None if chosen is None else chosen.precision,
            "hardware": None if chosen is None else chosen.environment.get("cpu_model", ""),
            "batch_size": None if chosen is None else chosen.batch_size,
            "num_workers": None if chosen is None else chosen.num_workers,
            "binding": self.binding,
            "advice": self.advice,
            "predicted": None if chosen is None else chosen.to_json(),
            "rejected": [vars(rejection) for rejection in self.rejected],
        }


@door
def choose(comparison: Comparison, requirement: Requirement) -> Decision:
    """Take the candidate that meets every limit and is best by the objective.

    comparison: measured candidates, on validation, with their paired drops against one baseline.
    Ties are broken by size, then by key, so that the same records always give the same decision.
    Raises ConfigError for records of the test split: whoever chooses by it has nothing left to confirm with.
    """
    if any(record.split == "test" for record in comparison.measurements):
        raise ConfigError(
            "these records are of the test split, which only the winner sees, once: choose by records of the "
            "validation split (labkit measure … --split validation)"
        )
    qualifying: list[Measurement] = []
    walls: dict[str, Rejection] = {}
    for record in comparison.measurements:
        rejection = first_wall(comparison, record, requirement)
        if rejection is None:
            qualifying.append(record)
        else:
            walls[record.key] = rejection
    chosen = min(qualifying, key=lambda record: _rank(comparison, record, requirement), default=None)
    beaten = [
        _beaten(comparison, record, chosen, requirement)
        for record in qualifying
        if chosen and record is not chosen
    ]
    binding = _binding(comparison, walls, chosen, requirement)
    return Decision(
        requirement=requirement,
        chosen=chosen,
        binding=binding,
        rejected=(*walls.values(), *beaten),
        advice=_advice(walls, chosen, binding),
    )


def first_wall(comparison: Comparison, record: Measurement, requirement: Requirement) -> Rejection | None:
    """The first of the requirement's limits that `record` breaks; None if it keeps them all."""
    for field, wanted in (("batch_size", requirement.batch_size), ("threads", requirement.threads)):
        found = record.batch_size if field == "batch_size" else record.intra_op_threads
        if found != wanted:
            reason = f"measured with {field.replace('_', ' ')} {found}, the requirement is {wanted}"
            return Rejection(record.key, field, found, wanted, reason)
    if record.runtime not in requirement.runtimes:
        return Rejection(
            record.key,
            "runtimes",
            None,
            None,
            f"{record.runtime} is not among {', '.join(requirement.runtimes)}",
        )
    for field, limit in requirement.limits.given().items():
        value = _figure(comparison, record, field)
        if value is None:
            reason = f"{_plain(field)} could not be measured, and it is limited to {_number(limit, field)}"
            return Rejection(record.key, field, None, limit, reason)
        if value > limit if field.startswith("max_") else value < limit:
            sign = "above" if field.startswith("max_") else "below"
            reason = (
                f"{_plain(field)} is {_number(value, field)}, {sign} the limit of {_number(limit, field)}"
            )
            return Rejection(record.key, field, value, limit, reason)
    return None


def _figure(comparison: Comparison, record: Measurement, field: str) -> float | None:
    name = field.removeprefix("max_").removeprefix("min_")
    if name in ("accuracy_drop_pp", "accuracy_drop_upper_pp", "quality_drop"):
        if record.key == comparison.baseline_key:
            return 0.0
        pair = comparison.pair(record.key)
        if name == "quality_drop":
            return pair.quality_drop
        if name == "accuracy_drop_pp":
            return pair.accuracy_drop_pp
        return None if pair.accuracy_drop_pp_ci95 is None else pair.accuracy_drop_pp_ci95[1]
    value = getattr(record, name)
    return None if value is None else float(value)


def _merit(comparison: Comparison, record: Measurement, objective: str) -> float | None:
    """The objective's figure; a speed from the paired ratio where there is one."""
    value: float | None = getattr(record, objective)
    ratio = _paired_speed(comparison, record, objective)
    if ratio is None:
        return value
    baseline = next(each for each in comparison.measurements if each.key == comparison.baseline_key)
    figure = float(getattr(baseline, objective))
    if OBJECTIVES[objective]:
        return figure * ratio
    return figure * record.batch_size / baseline.batch_size / ratio


def _paired_speed(comparison: Comparison, record: Measurement, objective: str) -> float | None:
    if objective not in _SPEEDS or record.key == comparison.baseline_key:
        return None
    return comparison.pair(record.key).speedup


def _rank(comparison: Comparison, record: Measurement, requirement: Requirement) -> tuple[float, float, str]:
    value = _merit(comparison, record, requirement.objective)
    size_bytes = float("inf") if record.size_bytes is None else record.size_bytes
    if value is None:
        return (float("inf"), size_bytes, record.key)
    return (-value if OBJECTIVES[requirement.objective] else value, size_bytes, record.key)


def _beaten(
    comparison: Comparison, record: Measurement, chosen: Measurement, requirement: Requirement
) -> Rejection:
    field = requirement.objective
    mine, best = (_merit(comparison, each, field) for each in (record, chosen))
    paired = " by the paired ratio" if _paired_speed(comparison, record, field) else ""
    reason = (
        f"meets every limit; {_plain(field)}{paired} is {_number(mine, field)}, "
        f"the chosen one has {_number(best, field)}"
    )
    if _overlap(comparison, record, chosen, field):
        reason += "; their intervals overlap: no difference detected"
    return Rejection(record.key, "objective", mine, best, reason)


def _overlap(comparison: Comparison, one: Measurement, other: Measurement, objective: str) -> bool:
    """Whether both speeds have intervals, and these have something in common."""
    if None in (_paired_speed(comparison, each, objective) for each in (one, other)):
        return False
    first, second = (comparison.pair(each.key).speedup_ci95 for each in (one, other))
    return bool(first and second and first[0] <= second[1] and second[0] <= first[1])


def _binding(
    comparison: Comparison,
    walls: dict[str, Rejection],
    chosen: Measurement | None,
    requirement: Requirement,
) -> str:
    """The limit that the best of the better-but-rejected candidates breaks; "" if none is better."""
    limits = requirement.limits.given()
    outside = [
        each for each in comparison.measurements if each.key in walls and walls[each.key].broke in limits
    ]
    best = min(outside, key=lambda record: _rank(comparison, record, requirement), default=None)
    if best is None:
        return ""
    if chosen is not None and _rank(comparison, chosen, requirement) <= _rank(comparison, best, requirement):
        return ""
    return walls[best.key].broke


def _advice(walls: dict[str, Rejection], chosen: Measurement | None, binding: str) -> str:
    if chosen is not None:
        return (
            f"to get further, relax {binding} first"
            if binding
            else "no limit stands in the way of a better one"
        )
    near = [
        w
        for w in walls.values()
        if w.value is not None and w.limit and w.broke not in ("batch_size", "threads")
    ]
    if not near:
        return "no candidate was measured under the requirement's batch size, threads and runtimes"
    closest = min(near, key=lambda w: abs((w.value or 0.0) - (w.limit or 0.0)) / abs(w.limit or 1.0))
    return f"nothing qualifies; the closest is {closest.key}: {closest.reason}; relax {closest.broke} to admit it"


_PLAIN = {"throughput_samples_per_s": "throughput", "latency_p50_ms": "median latency"}


def _plain(field: str) -> str:
    if field in _PLAIN:
        return _PLAIN[field]
    name = field.removeprefix("max_").removeprefix("min_")
    for suffix in _UNITS:
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def _number(value: float | None, field: str) -> str:
    if value is None:
        return "unknown"
    unit = next((unit for suffix, unit in _UNITS.items() if field.endswith(suffix)), "")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".replace(" /s", "/s").strip()
