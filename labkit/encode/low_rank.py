"""Low-rank factorisation: a matrix as the product of two thin ones (Denton et al. 2014; Jaderberg et al. 2014).

    W ≈ (U √S) (√S Vᵀ)      W = U S Vᵀ, of S only the `rank` largest singular values

No other product of that rank is nearer to W (Eckart and Young 1936). out · in weights become rank · (out + in), so it
pays below rank = out · in / (out + in), and only such layers are touched. Unlike zeros it can save time too:
the network stays dense, with more and thinner layers.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.models.low_rank import factors, with_ranks
from labkit.progress import Progress, part
from labkit.prune.fine_tune import FineTuned
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class FactorizeLowRank(FineTuned):
    """Replace each linear layer and convolution by two thin ones, where that takes fewer weights."""

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
        layers = {name: layer for name, layer in module.named_modules() if factors(layer)}
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
            raise TechniqueError(
                f"no layer of {variant.name!r} is smaller as two thin ones: lower keep={self.keep}"
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
