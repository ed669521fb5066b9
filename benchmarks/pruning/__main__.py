"""Pruning in milliseconds and points, beside another tool, and the experiments of the papers.

    python -m benchmarks.pruning [--parts ONE,ANOTHER] [--keep FOLDER] [--quick] [--json]

Speed: resnet20 on Fashion-MNIST, one thread, all 10,000 test images, times interleaved. Which weights matter, and
lottery tickets: LeNet-300-100 on MNIST. Nothing is chosen by the test images. Training takes more than an hour and
nothing else may run while times are taken: with `--keep FOLDER` what is trained stays there, and a second run trains
nothing. `--quick` measures shipped networks, on a tenth of the images and in fewer blocks; with `--parts` it hurries
through any part, except that it installs no other tool.
"""

from __future__ import annotations

from benchmarks.keep import keep_in
from benchmarks.parts import run_parts
from benchmarks.pruning.architectures import architectures
from benchmarks.pruning.best import best
from benchmarks.pruning.channels import channels, latency_targets
from benchmarks.pruning.experiments import criteria, lottery
from benchmarks.pruning.peer import torch_pruning

PARTS = (channels, latency_targets, best, torch_pruning, architectures, criteria, lottery)

if __name__ == "__main__":
    run_parts("pruning", PARTS, in_haste=(channels, best, architectures), keep=keep_in, one_machine=False)
