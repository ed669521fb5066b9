"""Every model of the matrix into every format that it can reach, with a proof for each; and what looking costs.

    python -m benchmarks.conversion [--quick] [--json]

A cell passes if the largest error is at most 1e-4 of the output's scale at batches 1, 3 and 7, and if no sample whose
margin (the distance of its two largest logits) exceeds ten times that changes its class, out of 600 samples. What
cannot be converted counts as typed if the reason came as an error of labkit's own. Formats whose packages are missing
are left out of the count, and said. `--quick` takes four models and three planted faults.
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks import run_benchmark
from benchmarks.matrix_models import MODELS, MatrixModel
from benchmarks.plants import PLANTS, plant
from labkit.convert import Converter, as_variant, find_paths, parity
from labkit.data import load_dataset
from labkit.errors import LabkitError
from labkit.microscope import microscope
from labkit.runtimes import reference_runtime
from labkit.statistics import ratio_interval
from labkit.variant import Array, Variant
from labkit.zoo import load_model
from tests.hostile.model_files import OPENED, STATIC

TARGETS = ("pt2", "onnx", "openvino", "tensorflow", "tflite")
TOLERANCE = 1e-4
_SAMPLES, _AT_ONCE, _ENOUGH = 600, 50, 500
_INSPECTED_BYTES = 100_000_000


@dataclass(frozen=True)
class Cell:
    """One model in one format: `verdict` is passed, departs, or refused (with labkit's own error)."""

    model: str
    source: str
    target: str
    verdict: str
    detail: str
    max_rel_error: float | None = None
    top1_agreement: float | None = None
    decided: int | None = None


def cells(each: MatrixModel) -> Iterator[Cell]:
    """The model in every format that its own leads to; a hop that two paths share is taken once."""
    model, inputs, outputs = each.make()
    source = as_variant(model, each.samples(2, seed=0), each.name) if each.source != "torch" else None
    if source is None:
        source = Variant(each.name, "torch", model, inputs, outputs, task=each.task)
    source = replace(source, task=each.task)
    names = [spec.name for spec in source.inputs]
    feeds = dict(zip(names, each.samples(_SAMPLES, seed=1).values(), strict=True))
    expected = first_output(source, feeds)
    made: dict[tuple[str, ...], Variant | LabkitError] = {}
    for target in TARGETS:
        if target == source.format:
            continue
        try:
            paths = find_paths(source.format, target)
        except LabkitError:
            continue
        results = (_along(path, source, made) for path in paths)
        first = next(results)
        result = (
            first
            if isinstance(first, Variant)
            else next((r for r in results if isinstance(r, Variant)), first)
        )
        yield judge(each.name, source, target, result, feeds, expected)


def _along(
    path: tuple[type[Converter], ...], source: Variant, made: dict[tuple[str, ...], Variant | LabkitError]
) -> Variant | LabkitError:
    current: Variant | LabkitError = source
    for length in range(1, len(path) + 1):
        key = tuple(edge.name for edge in path[:length])
        if key not in made and isinstance(current, Variant):
            try:
                made[key] = path[length - 1](keep=True)(current)
            except LabkitError as error:
                made[key] = error
        current = made.get(key, current)
    return current


def judge(
    name: str,
    source: Variant,
    target: str,
    result: Variant | LabkitError,
    feeds: dict[str, Array],
    expected: Array,
) -> Cell:
    """Compare the converted model with the original one, on samples that it might meet."""
    if isinstance(result, LabkitError):
        return Cell(name, source.format, target, "refused", f"{type(result).__name__}: {result}")
    try:
        report = parity(source, result, feeds)
        agreement, decided = agree(source, expected, first_output(result, feeds))
    except LabkitError as error:
        return Cell(name, source.format, target, "departs", f"{type(error).__name__}: {error}")
    enough = decided is None or decided >= _ENOUGH
    right = report.max_rel_error <= TOLERANCE and agreement in (None, 1.0) and enough
    verdict = "passed" if right else "departs"
    return Cell(name, source.format, target, verdict, "", report.max_rel_error, agreement, decided)


def first_output(variant: Variant, feeds: dict[str, Array]) -> Array:
    """The first output for all samples, [600, …], in its format's reference runtime."""
    renamed = {spec.name: array for spec, array in zip(variant.inputs, feeds.values(), strict=True)}
    with reference_runtime(variant).load(variant) as session:
        parts = [
            session.run({name: array[start : start + _AT_ONCE] for name, array in renamed.items()})
            for start in range(0, _SAMPLES, _AT_ONCE)
        ]
    return np.concatenate([part[variant.outputs[0].name] for part in parts])


def agree(source: Variant, expected: Array, found: Array) -> tuple[float | None, int | None]:
    """(share of the same class, how many samples had a margin to speak of); (None, None) if it is no classifier."""
    if source.task != "classification":
        return None, None
    ordered = np.sort(expected, axis=-1)
    clear = ordered[:, -1] - ordered[:, -2] > 10 * TOLERANCE * np.abs(expected).max()
    same = expected.argmax(-1) == found.argmax(-1)
    return float(same[clear].mean()) if clear.any() else None, int(clear.sum())


def found_faults(names: list[str]) -> list[dict[str, Any]]:
    """Each planted fault: whether the microscope names its operator, and the seconds that it takes."""
    rows = []
    digits = load_dataset("digits")
    for name in names:
        fault = plant(name)
        started = time.perf_counter()
        report = microscope(fault.reference, fault.other, digits)
        seconds = time.perf_counter() - started
        rows.append(
            {
                "fault": name,
                "pair": fault.pair,
                "operator": fault.operator,
                "found": report.names(fault.operator),
                "seconds": round(seconds, 2),
            }
        )
    return rows


def overhead(pairs: int) -> dict[str, Any]:
    """lk.convert with its proof, against PyTorch's bare exporter, taken in turns on resnet20."""
    import torch

    from labkit.convert import convert

    model, digits = load_model("resnet20@digits"), load_dataset("digits")

    def bare() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            torch.onnx.export(
                model.model,
                (torch.zeros(2, 1, 32, 32),),
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )

    logging.getLogger("torch").setLevel(logging.CRITICAL)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(pairs + 1):  # the first one warms up
        for name in ("ours", "bare") if turn % 2 else ("bare", "ours"):
            started = time.perf_counter()
            convert(model, "onnx", digits) if name == "ours" else bare()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    ratio, interval = ratio_interval(np.log(np.divide(seconds["ours"], seconds["bare"])))
    return {
        "overhead_ratio": round(ratio, 3),
        "overhead_ratio_low": round(interval[0], 3),
        "overhead_ratio_high": round(interval[1], 3),
        "convert_seconds": round(statistics.median(seconds["ours"]), 2),
        "bare_seconds": round(statistics.median(seconds["bare"]), 2),
    }


def inspecting(runs: int) -> dict[str, float]:
    """`labkit inspect` on a file of 100 MB: seconds, and the peak memory of its larger process by the file's size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.onnx"
        size = _write_large(path)
        start = "from labkit.cli import main; main()"
        command = [sys.executable, "-c", start, "inspect", str(path), "--json"]
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
        )
    return {
        "inspect_seconds": round(statistics.median(seconds), 2),
        "inspect_peak_over_file": round(int(done.stdout) * 1024 / size, 2),
    }


def _write_large(path: Path) -> int:
    width, layers = 1000, _INSPECTED_BYTES // 4_000_000
    weights = np.zeros((width, width), np.float32)
    nodes = [helper.make_node("Gemm", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    ends = [helper.make_tensor_value_info(f"x{i}", 1, ["batch", width]) for i in (0, layers)]
    stored = [numpy_helper.from_array(weights, f"w{i}") for i in range(layers)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path.stat().st_size


def hostile(every: int) -> dict[str, Any]:
    """Files that lie, explode or carry code: how many get one line of labkit's own, and leave nothing behind."""
    cases = list((STATIC | OPENED).values())[::every]
    clean, slowest = 0, 0.0
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = case.write(Path(folder))
            there = sorted(Path(folder).rglob("*"))
            started = time.perf_counter()
            try:
                load_model(path)
            except LabkitError as error:
                seconds = time.perf_counter() - started
                one_line = "\n" not in str(error)
                clean += one_line and sorted(Path(folder).rglob("*")) == there
                slowest = max(slowest, seconds)
    return {"hostile_files": len(cases), "hostile_clean": clean, "hostile_slowest_seconds": round(slowest, 2)}


def measure(quick: bool) -> dict[str, Any]:
    """The matrix, the planted faults, the overhead, the cost of looking."""
    models = [each for each in MODELS if each.is_available()]
    wanted = ("lenet5@digits", "gru", "two_towers", "unet")
    chosen = [each for each in models if each.name in wanted] if quick else models
    table = [cell for each in chosen for cell in cells(each)]
    passed = sum(cell.verdict == "passed" for cell in table)
    typed = sum(cell.verdict == "refused" for cell in table)
    faults = found_faults(list(PLANTS)[:3] if quick else list(PLANTS))
    figures: dict[str, Any] = {
        "models": len(chosen),
        "cells": len(table),
        "cells_passed_pct": round(100 * passed / len(table), 1),
        "cells_typed_pct": round(100 * typed / (len(table) - passed), 1) if passed < len(table) else None,
        "microscope_found": sum(row["found"] for row in faults),
        "microscope_planted": len(faults),
        "microscope_slowest_seconds": max(row["seconds"] for row in faults),
        **overhead(3 if quick else 10),
        **inspecting(3 if quick else 7),
        **hostile(20 if quick else 1),
    }
    rows = [{key: value for key, value in vars(cell).items() if value not in (None, "")} for cell in table]
    left_out = [each.name for each in MODELS if not each.is_available()]
    return {"figures": figures, "table": rows + faults, "left_out": left_out}


if __name__ == "__main__":
    run_benchmark("conversion", measure)
