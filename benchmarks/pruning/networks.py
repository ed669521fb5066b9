"""The networks whose speed is measured: a shipped resnet20, two shipped ones made of it, and what is made of those."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.keep import trained
from labkit.data import Dataset
from labkit.distill import Distill
from labkit.prune import PruneChannels
from labkit.variant import Variant
from labkit.zoo import load_model

DATASET = "fashion-mnist"
DENSE, PRUNED, DISTILLED = (f"resnet20@{DATASET}{made}" for made in ("", "+prune_channels", "+distill"))
"""Names in the zoo."""

_HOW: dict[str, Any] = {"batch_size": 128, "learning_rate": 0.1, "augment": "shift+flip", "threads": 1}
NARROWER = PruneChannels(
    pruning_ratio=0.5,
    only="blocks.0.*, blocks.1.*, blocks.2.*",
    fine_tune_epochs=24,
    alpha=0.9,
    teacher=DENSE,
    **_HOW,
)
"""Of the pruned network half of the channels within the blocks of its first stage too, where its time goes."""
EARLIER = Distill(student="resnet20", width=1.0, stem_stride=2, start="teacher", epochs=30, **_HOW)
"""The distilled network's student halves the image in its first layer, not in its first block."""
SHALLOWER = dataclasses.replace(EARLIER, student="resnet16", epochs=90)
"""The same with one block in place of three where the image is large, and three times as long at school."""


def narrower(dataset: Dataset) -> Variant:
    """The shipped pruned network, pruned once more within its blocks; the dense one is the teacher again."""
    return trained(NARROWER, load_model(PRUNED), dataset)


def halved_earlier(dataset: Dataset) -> Variant:
    """A student of the shipped distilled network: the dense network teaches an assistant, and that one teaches it."""
    return trained(EARLIER, load_model(DISTILLED), dataset)


def shallower(dataset: Dataset) -> Variant:
    """A student of the same assistant, with fewer layers: 15 convolutions in place of 19."""
    return trained(SHALLOWER, load_model(DISTILLED), dataset)
