"""Which layers mind losing channels: take some out of one group alone, measure, and put them back.

What a group costs to shrink and what it saves are different questions. The first layer of a network has few
multiply-adds to give and everything behind it to lose; a wide one in the middle often has half of its channels for
nothing. Nothing is trained, so a curve says what a group minds, not what training could mend (Li et al. 2017,
figure 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.measure.quality import evaluate
from labkit.progress import Progress, silent
from labkit.prune.channels import PruneChannels
from labkit.prune.structure import read_structure
from labkit.statistics import Interval
from labkit.variant import Variant

RATIOS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class GroupPruned:
    """The quality when `group` alone, of so many units, has lost the least important of them, `removed` units.

    `quality` is in the unit of `metric`; `drop` is how much worse than the whole network on the same samples.
    """

    group: str
    units: int
    ratio: float
    removed: int
    metric: str
    quality: float
    drop: float
    drop_ci95: Interval


@door
def scan_channels(
    variant: Variant,
    dataset: Dataset,
    ratios: Sequence[float] = RATIOS,
    importance: str = "l1",
    split: str = "validation",
    progress: Progress = silent,
) -> list[GroupPruned]:
    """Every group at every ratio, all others whole: in the graph's order, as given within a group.

    A PyTorch variant is measured as its graph, in ONNX Runtime. Raises ConfigError for a ratio that is not between 0
    and 1, TechniqueError if no channel of the variant can go.
    """
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise ConfigError(f"ratio={ratio!r} is out of range; allowed: 0 < ratio < 1")
    technique, task = PruneChannels(importance=importance), dataset.task
    structure = read_structure(variant)
    weighed = technique.weigh(structure, dataset)
    whole, found = evaluate(structure.graph([]), dataset, split), list[GroupPruned]()
    for group, values in weighed.items():
        for ratio in ratios:
            removed = technique.choose({group: values}, ratio)
            scores = evaluate(structure.graph(removed), dataset, split)
            drop, interval = task.drop(task.compare(whole, scores))
            count, quality = sum(map(len, removed)), task.quality(scores)
            found.append(
                GroupPruned(group.name, len(group), ratio, count, task.metric, quality, drop, interval)
            )
            progress(len(found) / (len(weighed) * len(ratios)), f"{group.name} without {ratio:.0%}")
    return found
