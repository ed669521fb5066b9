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

from labkit.data import Dataset
from labkit.doors import door
from labkit.environment import current
from labkit.errors import ConfigError
from labkit.files import check_writable
from labkit.measure import Candidate, Comparison, Measurement, Protocol, compare, measure
from labkit.package import check_replaceable, write_package
from labkit.parallel import pool_gain
from labkit.progress import Progress, part, silent
from labkit.report import write_report
from labkit.runtimes import RUNTIMES
from labkit.strategy import (
    OBJECTIVES,
    Confirmation,
    Decision,
    Outcome,
    Requirement,
    assumed,
    choose,
    confirm,
    doubt,
    fit_to,
    grid,
)
from labkit.strategy.outcome import pair_row
from labkit.study import Study
from labkit.variant import Variant

FINALISTS = 6


@door
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
    check_writable(out)
    check_replaceable(Path(out) / "package")
    study = Study(out)
    as_given, model = model, fit_to(model, dataset)
    if assumption := assumed(as_given, model, dataset):
        narrate(assumption)
    _check_requirement(model, dataset, requirement)
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
    as_it_came = next(r for r in screening.measurements if r.key == screening.baseline_key)
    if doubtful := doubt(as_it_came.accuracy, dataset):
        narrate(doubtful)

    finalists = _finalists(screening, candidates, requirement, baseline)
    narrate(f"Pairing {len(finalists)} finalists with the baseline, {baseline.key}, in interleaved blocks")
    paired = measure(finalists, dataset, against=baseline, seed=seed, progress=part(report, 0.7, 0.85))
    finals = compare(paired)
    decision = _merge(choose(finals, requirement), choose(screening, requirement), finals)
    if doubtful:
        decision = dataclasses.replace(decision, advice=f"{decision.advice}. {doubtful}")

    runs = [screened, paired]
    confirmation, pool, package = None, None, None
    if decision.chosen is not None:
        chosen = next(c for c in [baseline, *finalists] if c.key == decision.chosen.key)
        narrate(f"Confirming {chosen.key} once, on {_size(dataset, 'test')}")
        against = None if chosen.key == baseline.key else baseline
        confirmed = measure(
            [chosen], dataset, against=against, split="test", seed=seed, progress=part(report, 0.85, 0.95)
        )
        confirmation = confirm(compare(confirmed), requirement)
        runs.append(confirmed)
        narrate("Timing the chosen one in a pool: one worker against two")
        pool = pool_gain(chosen, dataset, seed=seed, progress=part(report, 0.95, 1.0))
        if pool is not None:
            runs.insert(0, pool.records)
    for run in runs:
        study.append_run(run)
    if confirmation is not None and confirmation.status != "broken":
        package = _package(chosen, dataset, confirmation, decision, Path(out))
        if package is None:
            narrate(f"No package: {chosen.key} is a PyTorch variant, and a package holds an ONNX file")
    outcome = Outcome(screening, finals, decision, confirmation, pool, built, package)
    write_report(outcome, out)
    return outcome


def _check_requirement(model: Variant, dataset: Dataset, requirement: Requirement) -> None:
    """Raise ConfigError for what this model or this data can never meet."""
    if model.fixed_batch not in (None, requirement.batch_size):
        raise ConfigError(
            f"{model.name} takes batches of exactly {model.fixed_batch}, the requirement asks for batch_size = "
            f"{requirement.batch_size}: export it with a free batch, or ask for batch_size = {model.fixed_batch}"
        )
    metric = dataset.task.metric
    for field in requirement.limits.given():
        if "accuracy" in field and metric != "accuracy":
            raise ConfigError(
                f"{field} is for classification, and {dataset.name} is {dataset.task_name}, measured by its {metric}: "
                "use max_quality_drop"
            )


def _baseline(model: Variant, requirement: Requirement) -> Candidate:
    runtime = "torch" if model.format == "torch" else "onnxruntime"
    return Candidate(model, runtime, model.fixed_batch or requirement.batch_size, requirement.threads)


def _size(dataset: Dataset, split: str) -> str:
    return f"{len(dataset.split(split)):,} {split} samples of {dataset.name}"


def _finalists(
    screening: Comparison, candidates: Sequence[Candidate], requirement: Requirement, baseline: Candidate
) -> list[Candidate]:
    """The best in the screening, the smallest that qualifies, each runtime's best, and then whoever comes next."""
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
    wanted = [
        *(record.key for record in order[:1]),
        *best_of_runtime.values(),
        *(record.key for record in order),
    ]
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
    earlier = [
        dataclasses.replace(rejection, reason=f"screened: {rejection.reason}")
        for rejection in screened.rejected
        if rejection.key not in in_finals
    ]
    if screened.chosen is not None and screened.chosen.key not in in_finals:
        raise AssertionError("the best of the screening is always a finalist")
    merged = dataclasses.replace(final, rejected=(*final.rejected, *earlier))
    if final.binding or final.chosen is None:
        return merged
    # What was kept out by a limit in the screening already never came to the finals, and may be what binds.
    return dataclasses.replace(merged, binding=screened.binding, advice=screened.advice)


def _package(
    chosen: Candidate, dataset: Dataset, confirmation: Confirmation, decision: Decision, out: Path
) -> Path | None:
    if chosen.variant.format != "onnx":
        return None
    record, pairs = confirmation.measured, confirmation.comparison.pairs
    evidence = {
        "confirmation": f"{confirmation.status}: {confirmation.reason}",
        "advice": decision.advice,
        "against_baseline": pair_row(pairs[0]) if pairs else None,
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
