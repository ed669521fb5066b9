"""Quantization beside other tools, and what each of its claims comes to.

    python -m benchmarks.quantization [--quick] [--json]

resnet20, mobilenet and vit on Fashion-MNIST: the same float32 ONNX files, the same 300 calibration images, the same
runtimes and threads for everybody, all 10,000 test images, times interleaved. Peers are installed into environments
of their own. `--quick` leaves the peers and the training out, and takes 1,000 test images.
"""

from __future__ import annotations

from typing import Any

from benchmarks import run_benchmark
from benchmarks.quantization.collapse import collapse
from benchmarks.quantization.few_bits import few_bit_weights, mixed_precision, trained_on_the_grid
from benchmarks.quantization.memory import calibration_memory
from benchmarks.quantization.peers import against_peers
from benchmarks.quantization.speed import int8_speed
from benchmarks.quantization.why import explained
from labkit.cli.terminal import say

PARTS = (
    against_peers,
    int8_speed,
    collapse,
    few_bit_weights,
    trained_on_the_grid,
    calibration_memory,
    mixed_precision,
    explained,
)
_IN_HASTE = (int8_speed, collapse, mixed_precision)


def measure(quick: bool) -> dict[str, Any]:
    """All parts, one after the other; each row says which part it is of."""
    figures: dict[str, float | None] = {}
    table: list[dict[str, Any]] = []
    for part in _IN_HASTE if quick else PARTS:
        say(f"benchmarks.quantization: {part.__name__}")
        found, rows = part(quick)
        figures |= found
        table += [{"part": part.__name__, **row} for row in rows]
    return {"figures": figures, "table": table}


if __name__ == "__main__":
    run_benchmark("quantization", measure)
