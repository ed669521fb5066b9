"""`optimize`: from a model, data and a requirement to a package, in seven told steps.

build      variants (candidates.py)
screen     all of them, on every runtime, briefly, on validation
pair       the six finalists against the baseline: interleaved blocks, intervals
choose     by the requirement, with a reason for every rejection
confirm    the chosen one against the baseline, once, on test
parallel   the chosen one in a pool of two workers
write      records, report, package
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labkit.data import Dataset
from labkit.environment import current
from labkit.measure import Candidate, Comparison, Measurement, Protocol, compare, measure
from labkit.package import write_package
from labkit.parallel import pool_gain
from labkit.progress import Progress, part, silent
from labkit.report import write_report
from labkit.runtimes import RUNTIMES
from labkit.strategy import OBJECTIVES, Decision, Outcome, Rejection, Requirement, choose, grid
from labkit.study import Study
from labkit.variant import Preprocessing, Variant

FINALISTS = 6


def optimize(
    model: Variant,
    dataset: Dataset,
    requirement: Requirement,
    out: str | Path,
    *,
    training_seconds: float = 90.0,
    narrate: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Outcome:
    """Find the best way to run `model` under `requirement`, prove it on data it was not chosen on, and package it.

    model: a PyTorch variant, or ONNX (then only techniques that need no training are tried). `narrate` is told every
    step in words; `progress` may cancel between batches. Choosing sees only `validation`; `test` is looked at once.
    Raises LabkitError for a model and data that do not fit each other; nothing is written before the end.
    """
    from labkit.strategy.candidates import build_variants  # brings torch

    report = progress or silent
    study = Study(out)
    model = fit_to(model, dataset)
    narrate(f"Building variants of {model.name} ({model.size_bytes:,} bytes, {model.format})")
    built = build_variants(model, dataset, training_seconds, narrate, part(report, 0.0, 0.4))

    names = [runtime.name for runtime in RUNTIMES]
    batches = (model.fixed_batch,) if model.fixed_batch else (1, requirement.batch_size)
    threads = (requirement.threads, current().threads)
    candidates = grid(built.variants, names, batches, threads)
    baseline = _baseline(model, requirement)
    narrate(
        f"Screening {len(candidates)} ways to run {len(built.variants)} variants, on {_size(dataset, 'validation')}"
    )
    screened = measure(
        candidates, dataset, protocol=Protocol.quick(), seed=seed, progress=part(report, 0.4, 0.7)
    )
    screening = compare(screened, against=baseline.key)

    finalists = _finalists(screening, candidates, requirement, baseline)
    narrate(f"Pairing {len(finalists)} finalists with the baseline, {baseline.key}, in interleaved blocks")
    paired = measure(finalists, dataset, against=baseline, seed=seed, progress=part(report, 0.7, 0.85))
    finals = compare(paired)
    decision = _merge(choose(finals, requirement), choose(screening, requirement), finals)

    runs = [screened, paired]
    confirmation, pool, package = None, None, None
    if decision.chosen is not None:
        chosen = next(c for c in [baseline, *finalists] if c.key == decision.chosen.key)
        narrate(f"Confirming {chosen.key} once, on {_size(dataset, 'test')}")
        against = None if chosen.key == baseline.key else baseline
        confirmed = measure(
            [chosen], dataset, against=against, split="test", seed=seed, progress=part(report, 0.85, 0.95)
        )
        confirmation = compare(confirmed)
        runs.append(confirmed)
        narrate("Timing the chosen one in a pool: one worker against two")
        pool = pool_gain(chosen, dataset, seed=seed, progress=part(report, 0.95, 1.0))
    for run in runs:
        study.append_run(run)
    if confirmation is not None:
        package = _package(chosen, dataset, confirmation, decision, Path(out))
    outcome = Outcome(screening, finals, decision, confirmation, pool, built, package)
    write_report(outcome, out)
    return outcome


def fit_to(model: Variant, dataset: Dataset) -> Variant:
    """Make sure that the model takes this data; a bare file of images gets the plain preprocessing, x / 255.

    Raises TensorError or DataError where the two cannot belong together, before anything long is started.
    """
    dataset.check_classes(model)
    if model.task != dataset.task_name:
        model = dataclasses.replace(model, task=dataset.task_name)
    if not model.labels and dataset.labels:
        model = dataclasses.replace(model, labels=dataset.labels)
    arrays = dataset.split("validation").inputs
    if not model.preprocessing and len(model.inputs) == 1 and len(arrays) == 1:
        spec, array = model.inputs[0], next(iter(arrays.values()))
        if spec.dtype == "float32" and array.dtype.kind in "iub":
            scale = 1 / 255 if array.dtype.itemsize == 1 else 1.0
            layout = (
                "NCHW"
                if len(spec.shape) == 4 and array.ndim == 4 and _channels_first(spec.shape, array)
                else None
            )
            model = dataclasses.replace(model, preprocessing={spec.name: Preprocessing(scale, layout=layout)})
    model.feeds(dataset.split("validation").take(slice(0, model.fixed_batch or 2)).inputs)
    return model


def _channels_first(shape: Sequence[int | str], array: Any) -> bool:
    return bool(shape[1] == array.shape[3] and shape[2:] != array.shape[2:])


def _baseline(model: Variant, requirement: Requirement) -> Candidate:
    runtime = "torch" if model.format == "torch" else "onnxruntime"
    return Candidate(model, runtime, model.fixed_batch or requirement.batch_size, requirement.threads)


def _size(dataset: Dataset, split: str) -> str:
    return f"{len(dataset.split(split)):,} {split} samples of {dataset.name}"


def _finalists(
    screening: Comparison, candidates: Sequence[Candidate], requirement: Requirement, baseline: Candidate
) -> list[Candidate]:
    """The best of those that qualified in the screening, then the nearest misses, each runtime's best among them."""
    by_key = {candidate.key: candidate for candidate in candidates}
    decision = choose(screening, requirement)
    asked = (requirement.batch_size, requirement.threads)
    order = sorted(
        (
            record
            for record in screening.measurements
            if record.key != baseline.key and (record.batch_size, record.intra_op_threads) == asked
        ),
        key=lambda record: _rank(record, decision, requirement),
    )
    best_of_runtime: dict[str, str] = {}
    for record in order:
        best_of_runtime.setdefault(record.runtime, record.key)
    wanted = [*(record.key for record in order[: FINALISTS - 1]), *best_of_runtime.values()]
    smallest = min(
        (record for record in order if _qualifies(record.key, decision)),
        key=lambda r: r.size_bytes or 0,
        default=None,
    )
    if smallest is not None:
        wanted.insert(1, smallest.key)
    return [by_key[key] for key in dict.fromkeys(wanted)][:FINALISTS]


def _qualifies(key: str, decision: Decision) -> bool:
    if decision.chosen is not None and decision.chosen.key == key:
        return True
    return any(rejection.key == key and rejection.broke == "objective" for rejection in decision.rejected)


def _rank(record: Measurement, decision: Decision, requirement: Requirement) -> tuple[bool, float, str]:
    """Those that qualify first, by the objective."""
    value = getattr(record, requirement.objective) or 0.0
    return (
        not _qualifies(record.key, decision),
        -value if OBJECTIVES[requirement.objective] else value,
        record.key,
    )


def _merge(final: Decision, screened: Decision, finals: Comparison) -> Decision:
    """The decision among the finalists, with the reasons of those that were rejected in the screening added."""
    in_finals = {record.key for record in finals.measurements}
    earlier: list[Rejection] = [
        rejection for rejection in screened.rejected if rejection.key not in in_finals
    ]
    if screened.chosen is not None and screened.chosen.key not in in_finals:
        raise AssertionError("the best of the screening is always a finalist")
    merged = dataclasses.replace(final, rejected=(*final.rejected, *earlier))
    if final.binding or final.chosen is None:
        return merged
    # What was kept out by a limit in the screening already never came to the finals, and may be what binds.
    return dataclasses.replace(merged, binding=screened.binding, advice=screened.advice)


def _package(
    chosen: Candidate, dataset: Dataset, confirmation: Comparison, decision: Decision, out: Path
) -> Path | None:
    if chosen.variant.format != "onnx":
        return None
    record = confirmation.measurements[-1]
    evidence = {
        "measured_on": record.split,
        "dataset": dataset.name,
        "metric": record.quality_metric,
        "quality": record.quality,
        "quality_ci95": record.quality_ci95,
        "latency_p50_ms": record.latency_p50_ms,
        "throughput_samples_per_s": record.throughput_samples_per_s,
        "batch_size": record.batch_size,
        "requirement": decision.requirement.to_json(),
        "environment": dict(record.environment),
    }
    samples = dataset.split("test").take(slice(0, chosen.variant.fixed_batch or 8))
    return write_package(
        chosen.variant, chosen.runtime, chosen.threads, chosen.precision, samples, out / "package", evidence
    )
