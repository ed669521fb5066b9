"""The Pareto front: those that no other beats in one of two figures without losing in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.errors import ConfigError, nearest
from labkit.task import TASKS

LOWER_IS_BETTER = (
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "cold_start_ms", "size_bytes", "peak_memory_bytes",
    "macs", "parameters", "nonzero_parameters", "quality_drop", "accuracy_drop_pp",
    "time_share",
)  # fmt: skip
HIGHER_IS_BETTER = ("throughput_samples_per_s", "accuracy")


def front(rows: Sequence[Any], x: str = "latency_p50_ms", y: str = "quality") -> list[Any]:
    """The rows that are on the front of figures `x` and `y`, best `x` first; rows without one are left out.

    rows: Measurements, or mappings with the same names. Whether more is better is known by the figure's name, for
    quality by its metric. Raises ConfigError for a name that is not a figure.
    """
    sign_x, sign_y = sign(x, rows), sign(y, rows)
    points = [
        ((sign_x * value(row, x), sign_y * value(row, y)), row)
        for row in rows
        if value(row, x) is not None and value(row, y) is not None
    ]
    best = [
        (p, row) for p, row in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q, _ in points)
    ]
    return [row for _, row in sorted(best, key=lambda item: item[0], reverse=True)]


def value(row: Any, name: str) -> Any:
    """The field `name` of a Measurement or of a mapping; None where there is none."""
    return row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)


def sign(name: str, rows: Sequence[Any]) -> int:
    """+1 where more is better, −1 where less is: time, bytes and drops are costs, a quality asks its task."""
    if name in HIGHER_IS_BETTER:
        return 1
    if name in LOWER_IS_BETTER:
        return -1
    if name != "quality":
        known = (*LOWER_IS_BETTER, *HIGHER_IS_BETTER, "quality")
        raise ConfigError(f"unknown figure {name!r}; {nearest(name, known)}")
    metric = value(rows[0], "quality_metric") if rows else None
    return -1 if any(task.metric == metric and not task.higher_is_better for task in TASKS) else 1
