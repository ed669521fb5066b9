"""What `optimize` finds for resnet20 on two datasets, under the sheet `classroom`, and how that holds on test.

    python -m benchmarks.optimize [--quick] [--json]

Batch 32, one thread, against PyTorch eager in float32. The choice sees validation only; afterwards every finalist is
measured on test, in one interleaved run, with the smallest file of all; the best of each runtime within half a point,
and the smallest, are what the figures tell.
`--quick` trains nothing and leaves out Fashion-MNIST, as does a machine without that data: those figures are missing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import run_benchmark
from labkit.cli.terminal import say
from labkit.data import load_dataset
from labkit.errors import DataError
from labkit.measure import Candidate, Comparison, compare
from labkit.measure import measure as measure_candidates
from labkit.strategy import Outcome, load_requirement
from labkit.workflow import optimize
from labkit.zoo import load_model

RUNTIMES = ("onnxruntime", "openvino")
MOST_DROP_PP = 0.5


def on_test(outcome: Outcome, dataset: Any, seed: int = 0) -> Comparison:
    """Every finalist, and the smallest file, against the baseline on samples that nothing was chosen by."""
    variants = {(each.name, each.format): each for each in outcome.built.variants}
    candidates = [
        Candidate(
            variants[record.variant, record.format],
            record.runtime,
            record.batch_size,
            record.intra_op_threads,
            "bfloat16" if "bfloat16" in record.precision else "float32",
        )
        for record in outcome.finals.measurements
    ]
    smallest = min(outcome.built.variants, key=lambda variant: variant.size_bytes)
    if smallest not in [candidate.variant for candidate in candidates]:
        candidates.append(Candidate(smallest, "onnxruntime", candidates[0].batch_size, candidates[0].threads))
    return compare(
        measure_candidates(candidates[1:], dataset, against=candidates[0], split="test", seed=seed)
    )


def figures_of(name: str, outcome: Outcome, tested: Comparison) -> dict[str, float | None]:
    """Speed of the best of each runtime within half a point on test, its drop, and the sizes."""
    rows = [(record, pair) for record, pair in tested.with_pairs() if pair is not None]
    good = [(record, pair) for record, pair in rows if (pair.accuracy_drop_pp or 0.0) <= MOST_DROP_PP]
    whole = next(each for each in outcome.built.variants if each.format == "onnx")
    eighth = next(each for each in outcome.built.variants if each.quantized)
    figures: dict[str, float | None] = {}
    for runtime in RUNTIMES:
        best = max(
            (item for item in good if item[0].runtime == runtime),
            key=lambda item: item[1].speedup or 0.0,
            default=None,
        )
        interval = best[1].accuracy_drop_pp_ci95 if best else None
        figures[f"best_speedup_{runtime}_{name}"] = best[1].speedup if best else None
        figures[f"best_drop_pp_{runtime}_{name}"] = best[1].accuracy_drop_pp if best else None
        figures[f"best_drop_upper_pp_{runtime}_{name}"] = interval[1] if interval else None
    return {
        **figures,
        f"int8_size_ratio_{name}": eighth.size_bytes / whole.size_bytes,
        f"smallest_size_ratio_{name}": min((record.size_bytes or 0 for record, _ in good), default=0)
        / whole.size_bytes
        if good
        else None,
    }


def measure(quick: bool) -> dict[str, Any]:
    """Both datasets; the table holds every pair on test."""
    figures: dict[str, float | None] = {}
    table = []
    for name in ("digits", "fashion-mnist"):
        try:
            dataset = load_dataset(name) if name == "digits" or not quick else None
        except DataError:
            dataset = None
        if dataset is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model, requirement = load_model(f"resnet20@{name}"), load_requirement("classroom")
            seconds = 0.0 if quick else 90.0
            outcome = optimize(
                model, dataset, requirement, Path(folder) / "out", training_seconds=seconds, narrate=say
            )
        tested = on_test(outcome, dataset)
        figures |= figures_of(name.replace("-", "_"), outcome, tested)
        table += [
            {
                "dataset": name,
                "key": record.key,
                "size_bytes": record.size_bytes,
                "speedup": pair.speedup,
                "speedup_ci95": pair.speedup_ci95,
                "accuracy_drop_pp": pair.accuracy_drop_pp,
                "accuracy_drop_pp_ci95": pair.accuracy_drop_pp_ci95,
            }
            for record, pair in tested.with_pairs()
            if pair is not None
        ]
    return {"figures": figures, "table": table}


if __name__ == "__main__":
    run_benchmark("optimize", measure)
