"""What a first use costs: `import labkit`, `labkit --help`, and the whole demo with its peak memory.

    python -m benchmarks.start [--quick] [--json]

Every figure is of a fresh process. Times are medians; peak memory is of the largest single process, as the system
accounts for it. `--quick` leaves out the demo (its figures are then null).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import run_benchmark

LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]


def wall_ms(command: list[str], runs: int) -> float:
    """The median wall time of a command, after one run that is not counted."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def peak_of(command: list[str], errors: Path) -> tuple[str, float, float]:
    """Run a command; return its stdout, its seconds, and its peak memory in MB (POSIX)."""
    started = time.perf_counter()
    with open(errors, "w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{command} failed: {errors.read_text()[-500:]}")
    return output, time.perf_counter() - started, usage.ru_maxrss / 1024


def demo_figures(document: dict[str, Any]) -> dict[str, float | None]:
    """What the demo found, against PyTorch eager on the same samples at batch 32, one thread."""
    records, decision = document["records"], document["decision"]
    finals = {pair["key"]: pair for pair in document["comparison"]}
    figures: dict[str, float | None] = {}
    for runtime in ("onnxruntime", "openvino"):
        ratios = [
            pair["speedup"]
            for key, pair in finals.items()
            if f" {runtime} " in key and pair["accuracy_drop_pp"] <= 0.5
        ]
        figures[f"best_speedup_{runtime}"] = max(ratios, default=None)
    float_bytes = next(r["size_bytes"] for r in records if r["format"] == "onnx" and len(r["lineage"]) == 2)
    int8 = [r for r in records if r["precision"] == "int8"]
    figures["int8_size_ratio"] = next(
        r["size_bytes"] / float_bytes
        for r in int8
        if [s["technique"] for s in r["lineage"]][-2:] == ["export_onnx", "quantize_int8"]
        and len(r["lineage"]) == 3
    )
    small = (
        [
            r["size_bytes"] / float_bytes
            for r in records
            if r["key"] in finals and finals[r["key"]]["accuracy_drop_pp"] <= 0.5
        ]
        if "key" in records[0]
        else [r["size_bytes"] / float_bytes for r in records]
    )
    figures["smallest_size_ratio"] = min(small)
    confirmed = decision["confirmed_on_test"]
    figures["chosen_test_speedup"] = confirmed and confirmed.get("speedup")
    figures["chosen_test_drop_pp"] = confirmed and confirmed.get("accuracy_drop_pp")
    return figures


def measure(quick: bool) -> dict[str, Any]:
    """All figures; those of the demo are null with `quick`."""
    runs = 5 if quick else 15
    empty = wall_ms([sys.executable, "-c", "pass"], runs)
    figures: dict[str, float | None] = {
        "import_ms": wall_ms([sys.executable, "-c", "import labkit"], runs) - empty,
        "help_ms": wall_ms([*LABKIT, "--help"], runs),
    }
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            output, seconds, peak_mb = peak_of(
                [*LABKIT, "demo", "--json", "--out", f"{folder}/demo"], Path(folder) / "log"
            )
            figures |= {"demo_seconds": seconds, "demo_peak_mb": peak_mb, **demo_figures(json.loads(output))}
    return {"figures": figures, "table": []}


if __name__ == "__main__":
    run_benchmark("start", measure)
