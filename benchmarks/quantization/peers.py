"""Static int8 beside ONNX Runtime's own quantizer, NNCF and neural-compressor: accuracy, and speed on each runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.quantization.common import (
    CALIBRATION_SAMPLES,
    MODELS,
    RUNTIMES,
    Figures,
    Rows,
    Subject,
    paired_pp,
    race,
    ratio,
    subject,
)
from benchmarks.quantization_peers import PEERS, quantize
from labkit.cli.terminal import say
from labkit.errors import LabkitError
from labkit.measure.quality import evaluate
from labkit.quantize import QuantizeInt8
from labkit.runtimes import RunOptions
from labkit.variant import Variant


def against_peers(quick: bool) -> tuple[Figures, Rows]:
    """Every model: our int8 file, and those of all peers that can make one; without peers where `quick`."""
    figures: Figures = {}
    rows: Rows = []
    for model in MODELS:
        given = subject(model, quick)
        if given is None:
            continue
        ours = QuantizeInt8(calibration_samples=CALIBRATION_SAMPLES)(given.variant, given.dataset)
        made = {"labkit": ours}
        with tempfile.TemporaryDirectory() as folder:
            refused = {}
            for peer, result in () if quick else _peers(given, Path(folder)):
                if isinstance(result, Variant):
                    made[peer] = result
                else:
                    refused[peer] = result
        found, of_model = _compare(given, made, quick)
        figures |= found
        rows += of_model + [{"model": model, "tool": peer, "refused": why} for peer, why in refused.items()]
    return figures, rows


def _peers(given: Subject, folder: Path) -> Iterator[tuple[str, Variant | str]]:
    """Each peer with its variant, or with the reason why there is none."""
    (folder / "float.onnx").write_bytes(given.variant.payload)
    np.savez(folder / "calibration.npz", **given.variant.feeds(given.calibration().inputs))
    for peer in PEERS:
        say(f"{given.name}: {peer}")
        try:
            result = quantize(peer, folder / "float.onnx", folder / "calibration.npz", folder / peer)
            yield peer, result.variant(given.variant)
        except LabkitError as error:
            yield peer, str(error)


def _compare(given: Subject, made: dict[str, Variant], quick: bool) -> tuple[Figures, Rows]:
    figures: Figures = {}
    scores = {name: evaluate(variant, given.dataset, "test") for name, variant in made.items()}
    drops = {name: paired_pp(given.dataset, given.scores, each) for name, each in scores.items()}
    behind = {
        name: paired_pp(given.dataset, each, scores["labkit"])
        for name, each in scores.items()
        if name != "labkit"
    }
    times = {runtime: _times(given, made, runtime, quick) for runtime in RUNTIMES}
    figures[f"int8_drop_pp_{given.name}"] = drops["labkit"][0]
    if behind:
        best = max(behind, key=lambda name: behind[name][0])
        figures[f"int8_accuracy_vs_best_peer_pp_{given.name}"] = -behind[best][0]
        figures[f"int8_peers_more_accurate_{given.name}"] = sum(low > 0 for _, (low, _) in behind.values())
    rows = []
    for name, variant in made.items():
        row = {
            "model": given.name,
            "tool": name,
            "size_bytes": variant.size_bytes,
            "accuracy": float(scores[name].mean()),
            "drop_pp": drops[name][0],
            "drop_pp_ci95": drops[name][1],
        }
        if name != "labkit":
            row["labkit_behind_pp"], row["labkit_behind_pp_ci95"] = behind[name]
        for runtime, blocks in times.items():
            if name in blocks:
                row[f"{runtime}_ms"] = float(np.median(blocks[name]))
                if name != "labkit":
                    pair = ratio(blocks, "labkit", name)
                    row[f"labkit_time_ratio_{runtime}"], row[f"labkit_time_ratio_{runtime}_ci95"] = pair
        rows.append(row)
    for runtime in RUNTIMES:
        ratios = [
            row[f"labkit_time_ratio_{runtime}"] for row in rows if f"labkit_time_ratio_{runtime}" in row
        ]
        lows = [
            row[f"labkit_time_ratio_{runtime}_ci95"][0]
            for row in rows
            if f"labkit_time_ratio_{runtime}" in row
        ]
        if ratios:
            figures[f"int8_latency_vs_best_peer_{runtime}_{given.name}"] = max(ratios)
            figures[f"int8_peers_faster_{runtime}_{given.name}"] = sum(
                value > 1.03 and low > 1 for value, low in zip(ratios, lows, strict=True)
            )
    return figures, rows


def _times(given: Subject, made: dict[str, Variant], runtime: str, quick: bool) -> dict[str, np.ndarray]:
    """Interleaved times of all that this runtime can open."""
    takes = {"onnxruntime": ("onnx",), "openvino": ("onnx", "openvino")}[runtime]
    able = {name: (each, RunOptions()) for name, each in made.items() if each.format in takes}
    return race(able, runtime, given, quick)
