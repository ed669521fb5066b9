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
from labkit.measure import Measurement

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
    records = {record.key: record for record in map(Measurement.from_json, document["records"])}
    float_bytes = min(r.size_bytes or 0 for r in records.values() if made_by(r) == ("train", "export_onnx"))
    int8_bytes = min(
        r.size_bytes or 0 for r in records.values() if made_by(r) == ("train", "export_onnx", "quantize_int8")
    )
    good = [pair for pair in document["comparison"] if pair["accuracy_drop_pp"] <= 0.5]
    speedups = {
        f"best_speedup_{runtime}": max(
            (pair["speedup"] for pair in good if records[pair["key"]].runtime == runtime), default=None
        )
        for runtime in ("onnxruntime", "openvino")
    }
    confirmed = document["decision"]["confirmed_on_test"] or {}
    return {
        **speedups,
        "int8_size_ratio": int8_bytes / float_bytes,
        "smallest_size_ratio": min(records[pair["key"]].size_bytes or 0 for pair in good) / float_bytes,
        "chosen_test_speedup": confirmed.get("speedup"),
        "chosen_test_drop_pp": confirmed.get("accuracy_drop_pp"),
        "chosen_pool_speedup": (document["pool"] or {}).get("speedup"),
    }


def made_by(record: Measurement) -> tuple[str, ...]:
    """The techniques of a record's lineage, in order."""
    return tuple(step["technique"] for step in record.lineage)


def measure(quick: bool) -> dict[str, Any]:
    """All figures, and what the demo prints; those of the demo are null with `quick`."""
    runs = 5 if quick else 15
    empty = wall_ms([sys.executable, "-c", "pass"], runs)
    figures: dict[str, float | None] = {
        "import_ms": wall_ms([sys.executable, "-c", "import labkit"], runs) - empty,
        "help_ms": wall_ms([*LABKIT, "--help"], runs),
    }
    if quick:
        return {"figures": {**figures, "demo_seconds": None, "demo_peak_mb": None}, "table": [], "told": ""}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        output, seconds, peak_mb = peak_of([*LABKIT, "demo", "--json", "--out", f"{folder}/json"], log)
        figures |= {"demo_seconds": seconds, "demo_peak_mb": peak_mb, **demo_figures(json.loads(output))}
        told, _, _ = peak_of([*LABKIT, "demo", "--out", f"{folder}/told"], log)
        told = (log.read_text(encoding="utf-8") + "\n" + told).replace(f"{folder}/told", "results/demo")
    return {"figures": figures, "table": [], "told": told}


if __name__ == "__main__":
    run_benchmark("start", measure)
