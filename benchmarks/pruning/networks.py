"""The networks that are trained for this benchmark, and how; every one is made from a shipped resnet20.

`python -m benchmarks.pruning.networks FOLDER` trains those whose speed is measured, so that the parts `channels` and
`best` then find them with `--keep FOLDER` and only measure.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from benchmarks.keep import keep_in, trained
from benchmarks.pruning import SEEDS
from labkit.data import Dataset, load_dataset
from labkit.prune import PruneChannels
from labkit.variant import Variant
from labkit.zoo import load_model

DATASET = "fashion-mnist"
DENSE, PRUNED, DISTILLED = (f"resnet20@{DATASET}{made}" for made in ("", "+prune_channels", "+distill"))
"""Names in the zoo."""

HALF = PruneChannels(
    pruning_ratio=0.5,  # half of all channels, which leaves 25.1 % of the multiply-adds
    round_to=8,
    fine_tune_epochs=16,
    alpha=0.9,
    batch_size=128,
    learning_rate=0.1,
    augment="shift+flip",
    threads=1,
)
"""A quarter of the multiply-adds, in widths that both runtimes like; the whole network teaches what is left."""

INNER = PruneChannels(
    pruning_ratio=0.5,
    what="inner",
    round_to=16,
    fine_tune_epochs=16,
    alpha=0.9,
    teacher=DENSE,
    batch_size=128,
    learning_rate=0.1,
    augment="shift+flip",
    threads=1,
)
"""Of the distilled network only what lies within the blocks, down to the 16 channels that AMX computes at a time."""


def pruned(dataset: Dataset, seed: int) -> Variant:
    """The dense network with half of its channels, fine-tuned; seed 0 is the one that is shipped."""
    if seed == 0:
        return load_model(PRUNED)
    return trained(dataclasses.replace(HALF, seed=seed), load_model(DENSE), dataset)


def distilled_and_pruned(dataset: Dataset) -> Variant:
    """The shipped network that was distilled to half the resolution, pruned too, with the dense one as its teacher."""
    return trained(INNER, load_model(DISTILLED), dataset)


if __name__ == "__main__":
    keep_in(Path(sys.argv[1]))
    images = load_dataset(DATASET)
    distilled_and_pruned(images)
    for each in SEEDS:
        pruned(images, each)
