"""Low-rank factorisation: a matrix as the product of two thin ones (Denton et al. 2014; Jaderberg et al. 2014).

    W ≈ (U √S) (√S Vᵀ)      W = U S Vᵀ, of S only the `rank` largest singular values

No other product of that rank is nearer to W (Eckart and Young 1936). out · in weights become rank · (out + in), so it
pays below rank = out · in / (out + in), and only such layers are touched. Unlike zeros it can save time too:
the network stays dense, with more and thinner layers.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.models.low_rank import factors, with_ranks
from labkit.progress import Progress, part
from labkit.prune.fine_tune import FineTuned
from labkit.runtimes import reference_runtime
from labkit.technique import knob, probe
from labkit.variant import Variant


@dataclass(frozen=True)
class FactorizeLowRank(FineTuned):
    """Replace each linear layer and convolution by two thin ones, where that takes fewer weights.

    Layers that share a weight, or stand in several places, stay whole: as pairs of their own they would share nothing.
    So do those whose weight the network's code reads, as PyTorch's TransformerEncoderLayer does: a pair has none.
    """

    name: ClassVar[str] = "factorize_low_rank"
    title: ClassVar[str] = "Low-rank factorisation (two thin layers for one)"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    by: str = knob(
        "energy", "what is kept a share of: Σ S², or the layer's weights", choices=("energy", "parameters")
    )
    keep: float = knob(0.9, "the share", above=0.0, below=1.0)
    learning_rate: float = knob(0.02, "the highest rate of fine-tuning", above=0.0, max=10.0, kw_only=True)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Factorise in a copy, then fine-tune it."""
        module = copy.deepcopy(variant.model)
        found = {name: layer for name, layer in module.named_modules() if factors(layer)}
        whole = _shared(module, found) | _read(variant, found, dataset)
        layers = {name: layer for name, layer in found.items() if name not in whole}
        thin: dict[str, tuple[Tensor, Tensor]] = {}
        for index, (name, layer) in enumerate(layers.items()):
            progress(0.2 * index / len(layers), f"factorising {name}")
            matrix = layer.weight.detach().flatten(1)
            if not bool(matrix.isfinite().all()):
                raise TechniqueError(
                    f"the weight of {name!r} in {variant.name!r} holds NaN or infinity: train again"
                )
            u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
            rank = self.rank(s, matrix.shape)
            if rank * sum(matrix.shape) < matrix.numel():
                root = s[:rank].sqrt()
                thin[name] = ((root[:, None] * v[:rank]).float(), (u[:, :rank] * root).float())
        if not thin:
            some = ", ".join(map(repr, sorted(whole)[:5]))
            others = f"; {len(whole)} stay whole, since they are shared or their weights are read ({some})"
            raise TechniqueError(
                f"no layer of {variant.name!r} is smaller as two thin ones: lower keep={self.keep}"
                + others * bool(whole)
            )
        biases = {name: layers[name].bias for name in thin}
        with_ranks(module, {name: len(first) for name, (first, _) in thin.items()})
        with torch.no_grad():
            for name, weights in thin.items():
                pair: Any = module.get_submodule(name)
                for layer, weight in zip(pair, weights, strict=True):
                    layer.weight.copy_(weight.view_as(layer.weight))
                if biases[name] is not None:
                    pair[1].bias.copy_(biases[name])
        result = variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=module)
        trained = self.fine_tune(result, variant, dataset, part(progress, 0.2, 1.0))
        return dataclasses.replace(result, model=trained)

    def rank(self, singular: Tensor, shape: torch.Size) -> int:
        """How many singular values to keep, one at least. singular: [r], descending; shape: (out, in · kh · kw)."""
        if self.by == "parameters":
            return max(1, int(self.keep * shape.numel() / sum(shape)))
        energy = singular.square().cumsum(0)
        return int((energy < self.keep * energy[-1]).sum()) + 1


def _shared(module: nn.Module, layers: Mapping[str, nn.Module]) -> set[str]:
    """Those of the layers that stand in several places, or hold a parameter that another one holds too."""
    places: Counter[Any] = Counter()
    for parent in module.modules():
        places.update([*parent._modules.values(), *parent._parameters.values()])
    return {
        name
        for name, layer in layers.items()
        if any(places[each] > 1 for each in (layer, *layer.parameters()))
    }


def _read(variant: Variant, layers: Iterable[str], dataset: Dataset | None) -> set[str]:
    """Those of the layers that the network's code asks for more than to be called, found by running it once."""
    module: Any = copy.deepcopy(variant.model)
    watched = {name: _Watched(module.get_submodule(name)) for name in layers}
    for name, layer in watched.items():
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, layer)
    if dataset is None:
        feeds = probe(variant)
    else:
        feeds = variant.feeds(dataset.split("train").take(slice(0, variant.fixed_batch or 2)).inputs)
    with reference_runtime(variant).load(dataclasses.replace(variant, model=module)) as session:
        session.run(feeds)
    return {name for name, layer in watched.items() if layer.asked}


class _Watched(nn.Module):
    """Stands where two thin layers will; `asked` says whether it was asked for what they will not have."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.asked = layer, False

    def forward(self, x: Tensor) -> Tensor:
        """What the layer computes."""
        y: Tensor = self.layer(x)
        return y

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            self.asked = True
            return getattr(self.layer, name)
