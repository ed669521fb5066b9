"""Quantization beside other tools, and what each of its claims comes to.

    python -m benchmarks.quantization [--parts ONE,ANOTHER] [--quick] [--json]

resnet20, mobilenet and vit on Fashion-MNIST: the same float32 ONNX files, the same 300 calibration images, the same
runtimes and threads for everybody, all 10,000 test images, times interleaved. Nothing is chosen by the test images.
Peers are installed into environments of their own. `--quick` measures the speed of int8 alone, on a tenth of the
images and in fewer blocks; with `--parts` it hurries through any part, except that it installs no peers and trains
nothing.
"""

from __future__ import annotations

from benchmarks.parts import run_parts
from benchmarks.quantization.collapse import collapse
from benchmarks.quantization.few_bits import few_bit_weights, trained_on_the_grid
from benchmarks.quantization.memory import calibration_memory
from benchmarks.quantization.mixing import mixed_precision
from benchmarks.quantization.peers import against_peers
from benchmarks.quantization.speed import int8_speed
from benchmarks.quantization.why import explained

PARTS = (
    against_peers,
    int8_speed,
    collapse,
    few_bit_weights,
    mixed_precision,
    calibration_memory,
    explained,
    trained_on_the_grid,
)

if __name__ == "__main__":
    run_parts("quantization", PARTS, in_haste=(int8_speed,))
