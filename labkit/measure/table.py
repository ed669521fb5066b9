"""A comparison as aligned plain text: for a terminal, and beside every plot for those who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.measure.pair import Pair
from labkit.measure.records import Measurement
from labkit.statistics import Interval

_NONE = "–"


def render(items: Sequence[tuple[Measurement, Pair | None]], notes: Sequence[str]) -> str:
    """One line per record. A figure that could not be told is a dash; the reasons are in the records.

    Percentages carry their 95 % interval in brackets; `drop` is paired with the baseline, positive is worse;
    latencies are of one batch; a speedup above 1 is faster than the baseline, per sample.
    """
    metric = items[0][0].quality_metric or "quality"
    header = ["name", metric, "drop", "size", "p50", "p95", "throughput", "speedup"]
    rows = [header, *(_row(item, pair) for item, pair in items)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        name, *figures = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([name, *figures]).rstrip())
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _row(item: Measurement, pair: Pair | None) -> list[str]:
    is_accuracy = item.quality_metric == "accuracy"
    scale, style, unit = (100.0, ".1f", " %") if is_accuracy else (1.0, ".4g", "")
    drop = speedup = "baseline"
    if pair is not None:
        signed = ("+.2f", " pp") if is_accuracy else ("+.3g", "")
        drop = _with_interval(pair.quality_drop, pair.quality_drop_ci95, scale, *signed)
        speedup = _with_interval(pair.speedup, pair.speedup_ci95, 1.0, ".2f", "×")
    throughput = item.throughput_samples_per_s
    return [
        item.key,
        _with_interval(item.quality, item.quality_ci95, scale, style, unit),
        drop,
        _NONE if item.size_bytes is None else _bytes(item.size_bytes),
        _ms(item.latency_p50_ms),
        _ms(item.latency_p95_ms),
        _NONE if throughput is None else f"{throughput:,.0f}/s",
        speedup,
    ]


def _with_interval(
    value: float | None, interval: Interval | None, scale: float, style: str, unit: str
) -> str:
    if value is None:
        return _NONE
    text = f"{scale * value + 0.0:{style}}{unit}"  # adding zero turns −0 into 0
    if interval is None:
        return text
    return f"{text} [{scale * interval[0]:{style}}, {scale * interval[1]:{style}}]"


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g} ms"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
