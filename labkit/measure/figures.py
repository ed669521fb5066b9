"""From what was seen to records: every figure is a value, or the reason why there is none."""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.environment import current
from labkit.errors import MeasurementError, ModelFileError
from labkit.measure.candidate import Candidate
from labkit.measure.counting import Counts, count
from labkit.measure.memory import peak_memory
from labkit.measure.records import Measurement, Reason, Records, split_reasons
from labkit.measure.run import Run, Seen, open_session
from labkit.measure.timing import Timing
from labkit.progress import Progress
from labkit.statistics import percentile, support

_AS_ACCURACY = {"quality": "accuracy", "quality_ci95": "accuracy_ci95", "quality_drop": "accuracy_drop_pp"}


def make_records(
    run: Run,
    candidates: Sequence[Candidate],
    against: Candidate | None,
    with_memory: bool,
    progress: Progress,
) -> Records:
    """One record per candidate that `run` has seen, under a fresh run_id, and the raw numbers beside them."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    counts: dict[str, Counts] = {}
    measurements = []
    for index, candidate in enumerate(candidates):
        progress(index / len(candidates), f"{candidate.key}: counting")
        variant, seen = candidate.variant, run.seen[candidate.key]
        if variant.digest not in counts:
            samples = run.samples.take(np.arange(variant.fixed_batch or 1) % len(run.samples))
            counts[variant.digest] = count(variant, variant.feeds(samples.inputs))
        figures = {
            **_quality(run, seen, run.seen[against.key] if against else None),
            **_speed(seen, candidate.batch_size),
            **dataclasses.asdict(counts[variant.digest]),
            "peak_memory_bytes": _memory(candidate, run) if with_memory else _NOT_ASKED,
        }
        measurements.append(_measurement(run_id, run, candidate, figures))
    progress(1.0, "measured")
    return Records(
        run_id,
        tuple(measurements),
        block_ms={key: seen.timing.block_ms for key, seen in run.seen.items()},
        run_ms={key: seen.timing.run_ms for key, seen in run.seen.items()},
        scores={key: seen.scores for key, seen in run.seen.items()},
        baseline_key=against.key if against else None,
    )


def _measurement(run_id: str, run: Run, candidate: Candidate, figures: dict[str, Any]) -> Measurement:
    variant, timing = candidate.variant, run.seen[candidate.key].timing
    values, null_reasons = split_reasons(figures)
    return Measurement(
        run_id=run_id,
        variant=variant.name,
        format=variant.format,
        precision=candidate.effective_precision,
        runtime=candidate.runtime,
        device=candidate.options.device,
        dataset=run.dataset.name,
        split=run.split,
        n_samples=len(run.samples),
        quality_metric=run.dataset.task.metric,
        size_bytes=variant.size_bytes,
        batch_size=candidate.batch_size,
        num_workers=candidate.num_workers,
        intra_op_threads=candidate.threads,
        warmup_runs=timing.warmup_runs,
        timed_runs=len(timing.run_ms),
        lineage=tuple(json.loads(json.dumps(dataclasses.asdict(step))) for step in variant.lineage),
        environment=_environment(run, timing),
        seed=run.seed,
        null_reasons=null_reasons,
        **values,
    )


def _environment(run: Run, timing: Timing) -> dict[str, Any]:
    """The machine, and how quiet it was; a pool's workers may be processes, whose CPU time is not ours."""
    waited = f"not held: waited {run.protocol.lock_timeout_s:g} s for it"
    environment = {**current().to_json(), "timing_lock": "held" if timing.lock_held else waited}
    if run.opener is open_session:
        environment["timing_cpu_share"] = round(timing.cpu_share, 3)
    return environment


def _quality(run: Run, seen: Seen, baseline: Seen | None) -> dict[str, Any]:
    task = run.dataset.task
    interval: Any = task.interval(seen.scores)
    if not all(map(math.isfinite, interval)):
        interval = Reason("one sample has no interval")
    figures: dict[str, Any] = {
        "quality": task.quality(seen.scores),
        "quality_ci95": interval,
        "quality_drop": Reason("no baseline in this run: measure(…, against=…)"),
    }
    if baseline:
        figures["quality_drop"] = task.drop(task.compare(baseline.scores, seen.scores))[0]
    if task.metric != "accuracy":
        return figures | dict.fromkeys(_AS_ACCURACY.values(), Reason(f"the metric is {task.metric}"))
    accuracy = {_AS_ACCURACY[name]: value for name, value in figures.items()}
    if baseline:
        accuracy["accuracy_drop_pp"] *= 100
    return figures | accuracy


def _speed(seen: Seen, batch_size: int) -> dict[str, Any]:
    run_ms, block_ms = seen.timing.run_ms, seen.timing.block_ms
    figures: dict[str, Any] = {
        "cold_start_ms": seen.cold_start_ms,
        "throughput_samples_per_s": 1e3 * batch_size / float(np.median(block_ms)),
    }
    for q in (50, 95, 99):
        value = percentile(run_ms, q)
        too_few = Reason(f"{len(run_ms)} timed runs do not support it: {support(q)} needed")
        figures[f"latency_p{q}_ms"] = too_few if value is None else value
    return figures


_NOT_ASKED = Reason("not asked for: measure(…, with_memory=True)")


def _memory(candidate: Candidate, run: Run) -> int | Reason:
    if candidate.num_workers != 1:
        return Reason("measured for one worker only")
    samples = run.samples.take(np.arange(candidate.batch_size) % len(run.samples))
    try:
        return peak_memory(candidate, candidate.variant.feeds(samples.inputs))
    except (MeasurementError, ModelFileError) as error:
        return Reason(error)
