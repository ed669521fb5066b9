"""The networks whose speed is measured: a shipped resnet20, two shipped ones made from it, and one trained here."""

from __future__ import annotations

from benchmarks.keep import trained
from labkit.data import Dataset
from labkit.prune import PruneChannels
from labkit.variant import Variant
from labkit.zoo import load_model

DATASET = "fashion-mnist"
DENSE, PRUNED, DISTILLED = (f"resnet20@{DATASET}{made}" for made in ("", "+prune_channels", "+distill"))
"""Names in the zoo."""

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


def distilled_and_pruned(dataset: Dataset) -> Variant:
    """The shipped network that was distilled to half the resolution, pruned too, with the dense one as its teacher."""
    return trained(INNER, load_model(DISTILLED), dataset)
