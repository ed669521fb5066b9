"""Causes that lie in how and where the variant runs: threads, batch, instructions, and what it is compared with."""

from __future__ import annotations

from labkit.environment import Environment
from labkit.explain.evidence import (
    ALLOWED_THREADS,
    BASELINE_FLOAT32,
    LARGER_BATCH,
    ONE_THREAD,
    Evidence,
)
from labkit.explain.executed import LAYER
from labkit.explain.finding import Finding
from labkit.explain.trials import AGAINST, ITSELF

TINY_MS = 0.02  # a call costs some microseconds; a layer that takes longer has something to do
_SLOW = 0.5  # of the yardstick's speed


def too_many_threads(evidence: Evidence) -> Finding | None:
    """More threads than the quota allows, or than the model has work for."""
    proved = {name: ratio for name in (ALLOWED_THREADS, ONE_THREAD) if (ratio := evidence.proved(name))}
    if not proved:
        return None
    best = max(proved, key=lambda name: proved[name].ci95[0])
    threads, fewer, trial = (
        evidence.profile.threads,
        evidence.race.entrants[best].options.threads,
        proved[best],
    )
    quota = evidence.environment
    over = threads > quota.threads
    why = (
        f"this process may use {quota.cpus:g} CPUs ({quota.cpu_source}), so threads wait for each other"
        if over
        else "each layer is too little work to be divided"
    )
    return Finding(
        "too_many_threads",
        trial.gone,
        f"{threads} threads are too many: {why}. With {fewer} it runs {trial} as fast.",
        f"--threads {fewer}",
        trial,
    )


def small_batch(evidence: Evidence) -> Finding | None:
    """A larger batch would take much less time a sample."""
    trial = evidence.proved(LARGER_BATCH)
    if trial is None:
        return None
    size, larger = evidence.profile.batch_size, evidence.race.entrants[LARGER_BATCH].batch_size
    return Finding(
        "small_batch",
        trial.gone,
        f"At a batch of {size} the time goes into reading weights and calling operators, not into arithmetic: a sample "
        f"in a batch of {larger} takes {1 / trial.value:.2f} of the time ({trial} as fast).",
        f"--batch-size {larger}, where samples can wait for each other; else a smaller model",
        trial,
    )


def tiny_layers(evidence: Evidence) -> Finding | None:
    """Layers so small that calling them is most of the work."""
    found = [
        each
        for each, _ in evidence.layers(
            lambda each, _: (
                each.ms < TINY_MS
                and each.macs_per_ms is not None
                and each.macs_per_ms < _SLOW * evidence.yardstick
            )
        )
    ]
    if not found:
        return None
    needed_ms = sum((each.macs or 0) / evidence.yardstick for each in found)
    spent_ms = sum(each.ms for each in found)
    share = (spent_ms - needed_ms) / evidence.profile.total_ms
    return Finding(
        "tiny_layers",
        share,
        f"{len(found)} layers take {1000 * spent_ms / len(found):.0f} µs each, and their arithmetic "
        f"{1000 * needed_ms / len(found):.1f} µs at the speed of a layer of convenient size here: {share:.0%} of the "
        "time is calling operators, which int8 makes no faster.",
        "fewer and wider layers, or more samples a call (--batch-size 32)",
    )


def missing_instructions(evidence: Evidence) -> Finding | None:
    """Int8 layers on a processor without integer dot products."""
    missing = _missing(evidence.environment)
    found = [each for each in evidence.profile.operators if each.work == LAYER and each.precision == "int8"]
    if not missing or not found:
        return None
    share = sum(each.share for each in found)
    return Finding(
        "missing_instructions",
        share,
        f"{evidence.environment.cpu_model} has no {missing}: {share:.0%} of the time goes into int8 layers, whose "
        "products it makes in several steps each. What the instruction would give cannot be measured here.",
        "run it where `labkit doctor` shows VNNI or AMX (x86) or dotprod (ARM); here float32 may be as fast: "
        "`labkit measure FLOAT INT8` tells",
    )


def baseline_not_float32(evidence: Evidence) -> Finding | None:
    """What the variant is compared with ran in a shorter format itself."""
    baseline = evidence.against
    if baseline is None:
        return None
    layers = [each for each in baseline.operators if each.work == LAYER]
    short = [each for each in layers if each.precision in ("bfloat16", "float16")]
    trial = evidence.proved(AGAINST)
    if not short or trial is None:
        return None
    ours = evidence.race.faster(ITSELF, BASELINE_FLOAT32)
    return Finding(
        "baseline_not_float32",
        trial.gone,
        f"The baseline never ran in float32: {len(short)} of its {len(layers)} layers were computed in "
        f"{short[0].precision}, which makes it {trial} as fast as in float32. Against a baseline in float32 this "
        f"variant is {ours} as fast.",
        "pin the precision of the baseline (labkit does, unless told otherwise): --against-precision float32",
        trial,
    )


def _missing(environment: Environment) -> str:
    """The instruction that multiplies and adds int8 numbers, if this processor lacks it; "" where nobody knows."""
    features = environment.cpu_features
    if "avx2" in features and not environment.has_vnni and not environment.has_amx:
        return "VNNI"
    if "neon" in features and not {"dotprod", "i8mm"} & set(features):
        return "dotprod"
    return ""
