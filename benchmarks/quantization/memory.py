"""What calibration takes: the peak of a fresh process on 128 and on 4,096 samples, beside ONNX Runtime's own.

Most of a process is what it loads, whatever the number of samples. So there are two ratios: of the whole process's
peak, and of what calibration adds to what was loaded before (`calibrating`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.quantization.common import not_shipped, subject
from labkit.cli.terminal import say
from labkit.quantize.calibration.observers import CALIBRATORS

MODEL = "resnet20"
FEW, MANY = 128, 4096
FIGURES = ("calibration_memory_ratio", "calibration_memory_above_loading_ratio")
_LIMIT_S = 900.0


def calibration_memory(quick: bool) -> Found:
    """Both ratios for each calibrator; the figures are the worst of ours."""
    given = subject(MODEL)
    if given is None:
        return nulls(FIGURES, not_shipped(MODEL))
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given.variant.save(folder / "variant")
        (folder / "float.onnx").write_bytes(given.variant.payload)
        train = given.dataset.split("train").take(slice(0, MANY))
        np.savez(folder / "samples.npz", **given.variant.feeds(train.inputs))
        for calibrator in ("minmax",) if quick else CALIBRATORS:
            rows.append(_row("labkit", folder, calibrator))
        for calibrator in () if quick else ("MinMax", "Entropy"):
            rows.append(_row("onnxruntime", folder, calibrator))
    found = Found(rows=rows)
    for figure, key in zip(FIGURES, ("ratio", "above_loading_ratio"), strict=True):
        ours = [row[key] for row in rows if row["tool"] == "labkit"]
        if None in ours:
            found.add(nulls([figure], "a process was ended, or this system does not tell its peak"))
        else:
            found.figures[figure] = max(ours)
    return found


def _row(tool: str, folder: Path, calibrator: str) -> dict[str, Any]:
    say(f"memory: {tool}, {calibrator}")
    few, many = (_child(tool, folder, count, calibrator) for count in (FEW, MANY))
    row: dict[str, Any] = {"model": MODEL, "tool": tool, "calibrator": calibrator}
    for count, told in ((FEW, few), (MANY, many)):
        for key in ("peak", "own"):
            size = told.get(f"{key}_bytes")
            row[f"{key}_mb_{count}"] = None if size is None else size / 1e6
    for key, name in (("peak", "ratio"), ("own", "above_loading_ratio")):
        less, more = row[f"{key}_mb_{FEW}"], row[f"{key}_mb_{MANY}"]
        row[name] = more / less if less and more is not None else None
    return row


def _child(tool: str, folder: Path, count: int, calibrator: str) -> dict[str, int | None]:
    """What the process told; nothing if it was ended (by the system for memory, by us for time)."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.quantization.calibrating",
        tool,
        str(folder),
        str(count),
        calibrator,
    ]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command, cwd=root, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {}
    told: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return told
