"""`compare`: records in, claims out, each with its interval. A pure function; nothing is run here.

Speed is compared block by block, quality sample by sample: what the two have in common cancels, and what is
left is the difference. "No difference detected" is a result; it does not say that there is none.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.doors import door
from labkit.errors import ConfigError, MeasurementError, nearest
from labkit.measure.front import front
from labkit.measure.pair import Pair
from labkit.measure.records import Measurement, Reason, Records, split_reasons
from labkit.measure.table import render
from labkit.statistics import Interval, ratio_interval
from labkit.task import TASKS, Task

_BUSY = 0.8


@dataclass(frozen=True, eq=False)
class Comparison:
    """All records and, for every one but the baseline, its Pair. `notes` say what weakens the comparison."""

    measurements: tuple[Measurement, ...]
    baseline_key: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    def pair(self, key: str) -> Pair:
        """The pair of that candidate; ConfigError with a suggestion otherwise."""
        for pair in self.pairs:
            if pair.key == key:
                return pair
        raise ConfigError(f"no pair for {key!r}; {nearest(key, [pair.key for pair in self.pairs])}")

    def with_pairs(self) -> Iterator[tuple[Measurement, Pair | None]]:
        """Every record with its pair; the baseline has none."""
        pairs = iter(self.pairs)
        found = False
        for item in self.measurements:
            is_baseline = not found and item.key == self.baseline_key
            found = found or is_baseline
            yield item, None if is_baseline else next(pairs)

    def pareto(self, x: str = "latency_p50_ms", y: str = "quality") -> tuple[Measurement, ...]:
        """The records that no other beats in one of two figures without losing in the other, best `x` first.

        Records without one of the figures are left out. Whether more is better is known by the figure's name.
        Raises ConfigError for a name that is not a figure.
        """
        return tuple(front(self.measurements, x, y))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per record: its key, its own fields, then those of its Pair (None for the baseline)."""
        return [
            {
                "key": item.key,
                **item.to_json(),
                **{name: _plain(getattr(pair, name, None)) for name in _PAIR_COLUMNS},
            }
            for item, pair in self.with_pairs()
        ]

    def to_csv(self) -> str:
        """`to_rows` as CSV; intervals, lineage and environment are JSON inside their cell."""
        rows = self.to_rows()
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
                    for name, value in row.items()
                }
            )
        return buffer.getvalue()

    def table(self) -> str:
        """The comparison as aligned plain text, the baseline first among what was measured."""
        return render(list(self.with_pairs()), self.notes)


_PAIR_COLUMNS = (
    "baseline_key", "speedup", "speedup_ci95", "speed_verdict", "quality_drop_ci95", "accuracy_drop_pp_ci95",
    "p_value", "quality_verdict",
)  # fmt: skip


@door
def compare(
    records: Records | Sequence[Measurement], against: str | None = None, allow_mixed_runs: bool = False
) -> Comparison:
    """Compare every record with that of key `against`: the run's own baseline, else the first, by default.

    Intervals need the raw numbers, so `Records`; a ratio needs a run in which the candidates took turns, so
    one that was measured with a baseline. What is missing is None in the Pair, with the reason.
    Raises MeasurementError for records of different runs, unless `allow_mixed_runs`, which is then noted;
    ConfigError for an unknown key.
    """
    measurements = tuple(records.measurements if isinstance(records, Records) else records)
    if not measurements:
        raise ConfigError("there are no records to compare")
    raw = records if isinstance(records, Records) else None
    baseline_key = against or (raw and raw.baseline_key) or measurements[0].key
    by_key = {item.key: item for item in measurements}
    if baseline_key not in by_key:
        raise ConfigError(f"no record of {baseline_key!r}; {nearest(baseline_key, by_key)}")
    run_ids = sorted({item.run_id for item in measurements})
    if len(run_ids) > 1 and not allow_mixed_runs:
        raise MeasurementError(
            f"the records come from {len(run_ids)} runs ({', '.join(run_ids[:3])}), and the machine may have "
            "changed between them: measure them in one run, or pass allow_mixed_runs=True"
        )
    notes = [f"records of {len(run_ids)} runs: their times were not taken side by side"] * (len(run_ids) > 1)
    notes += _disturbances(measurements)
    baseline = by_key[baseline_key]
    pairs = tuple(_pair(item, baseline, raw) for item in measurements if item is not baseline)
    return Comparison(measurements, baseline_key, pairs, tuple(notes))


def _disturbances(measurements: Sequence[Measurement]) -> Iterator[str]:
    """What the environments say of the time when these were measured."""
    if any(item.environment.get("timing_lock", "held") != "held" for item in measurements):
        yield "other work of ours may have run while these were timed"
    share = min(float(item.environment.get("timing_cpu_share", 1.0)) for item in measurements)
    if share < _BUSY:
        yield (
            f"something else kept the machine busy: we had {share:.0%} of a core, which slows long runs more "
            "than short ones"
        )


def _pair(item: Measurement, baseline: Measurement, raw: Records | None) -> Pair:
    """Each figure, or the reason why there is none."""
    values, null_reasons = split_reasons({**_speed(item, baseline, raw), **_quality(item, baseline, raw)})
    return Pair(
        item.key, baseline.key, quality_metric=item.quality_metric, null_reasons=null_reasons, **values
    )


def _speed(item: Measurement, baseline: Measurement, raw: Records | None) -> dict[str, Any]:
    names = ("speedup", "speedup_ci95", "speed_verdict")
    if raw is None:
        return dict.fromkeys(names, Reason("needs the block times: compare Records, not single measurements"))
    if raw.baseline_key is None:
        return dict.fromkeys(names, Reason("not timed side by side: measure(…, against=…)"))
    per_sample = [raw.block_ms[each.key] / each.batch_size for each in (baseline, item)]
    speedup, interval = ratio_interval(np.log(per_sample[0]) - np.log(per_sample[1]))
    return dict(zip(names, (speedup, interval, _verdict(interval, 1.0, higher_is_better=True)), strict=True))


def _quality(item: Measurement, baseline: Measurement, raw: Records | None) -> dict[str, Any]:
    names = ("quality_drop", "quality_drop_ci95", "p_value", "quality_verdict")
    task = _task(item)
    if task is None or item.quality is None or baseline.quality is None:
        return dict.fromkeys(names, Reason("quality was not measured"))
    if _samples(item) != _samples(baseline):
        return dict.fromkeys(names, Reason("quality was measured on different samples"))
    if raw is None:
        drop = baseline.quality - item.quality if task.higher_is_better else item.quality - baseline.quality
        reason = Reason("needs each sample's score: compare Records, not single measurements")
        return {"quality_drop": drop, **dict.fromkeys(names[1:], reason)}
    paired = task.compare(raw.scores[baseline.key], raw.scores[item.key])
    drop, interval = task.drop(paired)
    if not np.isfinite(interval).all():
        return {"quality_drop": drop, **dict.fromkeys(names[1:], Reason("one sample has no interval"))}
    return dict(zip(names, (drop, interval, paired.p_value, _verdict(interval, 0.0, False)), strict=True))


def _verdict(interval: Interval, neutral: float, higher_is_better: bool) -> str:
    if interval[0] <= neutral <= interval[1]:
        return "no difference detected"
    return "better" if (interval[0] > neutral) == higher_is_better else "worse"


def _samples(item: Measurement) -> tuple[object, ...]:
    return (item.dataset, item.split, item.n_samples, item.quality_metric)


def _task(item: Measurement) -> Task | None:
    return next((task for task in TASKS if task.metric == item.quality_metric), None)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
