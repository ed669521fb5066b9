"""What a second worker gains: streams of batches through one worker and through two, in interleaved blocks.

    python -m benchmarks.parallel [--quick] [--json]

resnet20 on digits in float32, one intra-op thread a worker; the figures are ONNX Runtime's, the table has both
engines. On a machine with one CPU the figure is about 1. `--quick` uses fewer blocks.
"""

from __future__ import annotations

from typing import Any

from benchmarks import run_benchmark
from labkit.convert import ExportOnnx
from labkit.data import load_dataset
from labkit.measure import Candidate, Protocol
from labkit.parallel import pool_gain
from labkit.zoo import load_model


def measure(quick: bool) -> dict[str, Any]:
    """Speedup of two workers over one at batches 1, 8 and 32."""
    dataset = load_dataset("digits")
    variant = ExportOnnx()(load_model("resnet20@digits"), dataset)
    protocol = Protocol(blocks=10 if quick else 30)
    figures, table = {}, []
    for runtime in ("onnxruntime", "openvino"):
        for batch_size in (1, 8, 32):
            gain = pool_gain(Candidate(variant, runtime, batch_size), dataset, protocol=protocol)
            assert gain is not None
            table.append({"runtime": runtime, **gain.to_json()})
            if runtime == "onnxruntime":
                figures[f"two_workers_batch{batch_size}"] = gain.speedup
    return {"figures": figures, "table": table}


if __name__ == "__main__":
    run_benchmark("parallel", measure)
