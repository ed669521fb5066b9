"""Magnitude pruning: set the smallest weights to zero (LeCun et al. 1989; Han et al. 2015).

    P(w) = w  if |w| ≥ θ,  else 0

θ is the magnitude below which a fraction `sparsity` of the weights lies. What it does *not* give: speed, or
a smaller plain file. A dense kernel multiplies by zero as carefully as by anything else, and 0.0 takes four
bytes like every float32. `nonzero_parameters` tells that something happened; to turn it into bytes, encode
the weights, and to turn it into time, remove whole channels (PruneChannels).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.prune.fine_tune import FineTuned
from labkit.technique import knob
from labkit.variant import Variant

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class PruneMagnitude(FineTuned):
    """Zero the smallest weights of all convolutions and linear layers; biases and batch norms stay.

    Neither faster nor smaller as a dense file: only `nonzero_parameters` falls. Exactly
    round(sparsity · n) of n weights are zero, after fine-tuning too.
    """

    name: ClassVar[str] = "prune_magnitude"
    title: ClassVar[str] = "Magnitude pruning (zeros; no speed by itself)"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    sparsity: float = knob(0.5, "fraction of the weights that become zero", above=0.0, below=1.0)
    scope: str = knob("global", "one threshold for the network, or one a layer", choices=("global", "layer"))
    learning_rate: float = knob(0.02, "the highest rate of fine-tuning", above=0.0, max=10.0, kw_only=True)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Zero the weights in a copy, then fine-tune it with the same weights held at zero."""
        module = copy.deepcopy(variant.model)
        weights = prunable_weights(module)
        if not weights:
            raise TechniqueError(f"{variant.name!r} has no convolution or linear layer to prune")
        groups = [weights] if self.scope == "global" else [[weight] for weight in weights]
        pruned = [mask for group in groups for mask in smallest(group, self.sparsity)]
        if not any(bool(weight[mask].any()) for weight, mask in zip(weights, pruned, strict=True)):
            raise TechniqueError(
                f"sparsity={self.sparsity} changes nothing in {variant.name!r}, where that many weights are "
                "zero already: raise it"
            )

        def hold_at_zero(trained: nn.Module) -> None:
            with torch.no_grad():
                for weight, mask in zip(prunable_weights(trained), pruned, strict=True):
                    weight.masked_fill_(mask, 0.0)

        hold_at_zero(module)
        result = variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=module)
        return dataclasses.replace(
            result, model=self.fine_tune(result, variant, dataset, progress, hold_at_zero)
        )


def prunable_weights(module: nn.Module) -> list[Tensor]:
    """The weights of all convolutions and linear layers, in the network's order, shared ones once."""
    layers = (layer for layer in module.modules() if isinstance(layer, _LAYERS))
    return list(dict.fromkeys(layer.weight for layer in layers))


def smallest(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Masks of the round(sparsity · n) smallest of all n magnitudes: True where |w| < θ.

    weights: any shapes; returns one boolean mask per weight, of its shape. Of weights that are exactly θ the
    first go, so that the number is exact; one weight at least always stays.
    """
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = min(round(sparsity * len(magnitudes)), len(magnitudes) - 1)
    mask = torch.zeros(len(magnitudes), dtype=torch.bool)
    mask[magnitudes.argsort(stable=True)[:count]] = True
    parts = torch.split(mask, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
