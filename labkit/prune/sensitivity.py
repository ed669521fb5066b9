"""Which layer minds losing weights: prune one alone, measure, and put it back.

Layers differ. The large linear layer of a LeNet hardly notices that nine tenths of it are gone; its first
convolution, 500 weights that everything else depends on, breaks. The curve of each layer over the sparsity shows
where there is room, and why one threshold for the network does better than one sparsity for every layer (Han et
al. 2015, figure 6). Nothing is trained, so a curve says what a layer minds, not what training could mend.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError, TechniqueError, nearest
from labkit.measure.quality import evaluate
from labkit.progress import Progress, silent
from labkit.prune.masks import lowest, prunable_layers
from labkit.prune.scores import CRITERIA
from labkit.statistics import Interval
from labkit.variant import Variant

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
SCANNED_BY = ("magnitude", "random")
"""Criteria that a layer can be scanned by: those that need no gradient, and differ within one layer."""


@dataclass(frozen=True)
class LayerPruned:
    """The quality when `layer` alone, of so many weights, has lost those that are worth least.

    `quality` is in the unit of `metric`; `drop` is how much worse than the whole network on the same samples.
    """

    layer: str
    weights: int
    sparsity: float
    metric: str
    quality: float
    drop: float
    drop_ci95: Interval


@door
def scan_layers(
    variant: Variant,
    dataset: Dataset,
    sparsities: Sequence[float] = SPARSITIES,
    criterion: str = "magnitude",
    split: str = "validation",
    progress: Progress = silent,
    seed: int = 0,
) -> list[LayerPruned]:
    """Every layer at every sparsity, all others whole: in the network's order, as given within a layer.

    With criterion="random", the control, `seed` draws what goes; what goes at one sparsity goes at all higher ones.
    Raises TechniqueError unless `variant` is a PyTorch model with layers to prune, ConfigError for a sparsity
    that is not between 0 and 1, or a criterion that is not one of SCANNED_BY.
    """
    if criterion not in SCANNED_BY:
        raise ConfigError(f"criterion={criterion!r} cannot be scanned by; {nearest(criterion, SCANNED_BY)}")
    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise ConfigError(f"sparsity={sparsity!r} is out of range; allowed: 0 < sparsity < 1")
    if variant.format != "torch" or not prunable_layers(variant.model):
        raise TechniqueError(
            f"{variant.name!r} is no PyTorch model with convolutions or linear layers to prune"
        )
    task, whole = dataset.task, evaluate(variant, dataset, split)
    module = copy.deepcopy(variant.model)
    layers, found = prunable_layers(module), list[LayerPruned]()
    worth = CRITERIA[criterion](seed).scores(list(layers.values()))
    for (layer, weight), score in zip(layers.items(), worth, strict=True):
        before = weight.detach().clone()
        for sparsity in sparsities:
            (mask,) = lowest([score], sparsity)
            weight.data.copy_(before.masked_fill(mask, 0.0))
            scores = evaluate(dataclasses.replace(variant, model=module), dataset, split)
            drop, interval = task.drop(task.compare(whole, scores))
            quality = task.quality(scores)
            found.append(LayerPruned(layer, weight.numel(), sparsity, task.metric, quality, drop, interval))
            progress(len(found) / (len(layers) * len(sparsities)), f"{layer} at {sparsity:.0%}")
        weight.data.copy_(before)
    return found
