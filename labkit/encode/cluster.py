"""Weight sharing: all weights of a tensor take one of a few values, its codebook (Han, Mao and Dally 2016, section 3).

A weight becomes the value nearest to it, found by k-means; zeros stay zero. Then the values are trained. A value
that many weights share moves by the sum of their gradients (the paper's section 3.3):

    ∂L/∂C_k = Σ_ij ∂L/∂W_ij · 1(I_ij = k)

which is what differentiating W = C[I] gives, so here C is the parameter and W is computed from it. The
sum is large where a value has many weights: hence the small learning rate. Plain files are no smaller for it; `encode`
turns it into bytes, fewest after PruneMagnitude.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from labkit.data import Dataset
from labkit.encode.kmeans import exact, lloyd, nearest
from labkit.errors import TechniqueError
from labkit.progress import Progress, part
from labkit.prune.fine_tune import FineTuned
from labkit.prune.masks import check_stored
from labkit.technique import knob
from labkit.variant import Variant

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class ClusterWeights(FineTuned):
    """Let the weights of each layer share a few values, zeros aside, and train those values.

    A number of levels of 0 leaves that kind of tensor as it is. Batch norms stay.
    """

    name: ClassVar[str] = "cluster_weights"
    title: ClassVar[str] = "Weight sharing (fewer bytes once encoded)"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    linear_levels: int = knob(8, "values that a linear layer's weights share", min=0, max=255)
    conv_levels: int = knob(16, "values that a convolution's weights share", min=0, max=255)
    bias_levels: int = knob(0, "values that a layer's biases share; 0: they stay", min=0, max=255)
    start: str = knob(
        "linear", "k-means from evenly spaced values, or the best there is", choices=("linear", "exact")
    )
    values: str = knob("int8", "what the values are rounded to", choices=("int8", "float16", "float32"))
    learning_rate: float = knob(0.001, "the highest rate of fine-tuning", above=0.0, max=10.0, kw_only=True)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Cluster a copy, train its codebooks, and round them to what a file stores in few bytes."""
        module = copy.deepcopy(variant.model)
        check_stored(module)
        tensors = list(self._tensors(module))
        if not tensors:
            raise TechniqueError(
                f"{variant.name!r} has no weights that these levels would cluster: raise one above 0"
            )
        shared: dict[Tensor, _Shared] = {}  # layers that share a tensor share its codebook
        for index, (layer, name, levels) in enumerate(tensors):
            share = part(progress, 0.2 * index / len(tensors), 0.2 * (index + 1) / len(tensors))
            share(0.0, "clustering")
            tensor = getattr(layer, name)
            if not bool(tensor.isfinite().all()):
                raise TechniqueError(f"a {name} of {variant.name!r} holds NaN or infinity: train again")
            shared[tensor] = shared.get(tensor) or self._shared(tensor, levels, share)
            parametrize.register_parametrization(layer, name, shared[tensor], unsafe=True)
        result = variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=module)
        trained = self.fine_tune(result, variant, dataset, part(progress, 0.2, 1.0))
        for layer, name, _ in list(self._tensors(trained)):
            values: Any = layer.parametrizations[name][0]  # type: ignore[index]
            values.round_to(self.values)
            parametrize.remove_parametrizations(layer, name)
        plain = copy.deepcopy(variant.model)  # parametrized layers list their tensors in another order
        plain.load_state_dict(trained.state_dict())
        return dataclasses.replace(result, model=plain)

    def _tensors(self, module: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
        """Layer, name and levels of everything that is clustered, in the network's order."""
        for layer in module.modules():
            weight_levels = self.conv_levels if isinstance(layer, _CONVOLUTIONS) else self.linear_levels
            if isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
                if weight_levels:
                    yield layer, "weight", weight_levels
                if self.bias_levels and layer.bias is not None:
                    yield layer, "bias", self.bias_levels

    def _shared(self, tensor: Tensor, levels: int, progress: Progress) -> _Shared:
        values = tensor.detach().double().numpy()
        kept, centroids = values != 0, np.zeros(1)
        if kept.any():
            some = values[kept]
            centroids = exact(some, levels, progress) if self.start == "exact" else lloyd(some, levels)
        entries = np.where(kept, 1 + nearest(values, centroids), 0)
        return _Shared(torch.tensor(centroids, dtype=tensor.dtype), torch.from_numpy(entries))


class _LookUp(torch.autograd.Function):
    """C[I], with the equation above as its gradient: summed in one order, so that training repeats exactly."""

    @staticmethod
    def forward(ctx: Any, codebook: Tensor, entries: Tensor) -> Tensor:
        ctx.save_for_backward(entries)
        ctx.size = len(codebook)
        return torch.cat([codebook.new_zeros(1), codebook])[entries]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (entries,), (gradient,) = ctx.saved_tensors, gradients
        sums = torch.bincount(entries.flatten(), gradient.flatten().double(), minlength=ctx.size + 1)
        return sums[1:].to(gradient.dtype), None


class _Shared(nn.Module):
    """W = C[I]: the codebook is the parameter, and zeros, which are entry 0, stay zero."""

    entries: Tensor

    def __init__(self, codebook: Tensor, entries: Tensor) -> None:
        super().__init__()
        self.codebook = nn.Parameter(codebook)
        self.register_buffer("entries", entries)

    def forward(self, _: Tensor) -> Tensor:
        """The tensor, made of the codebook: the shape of `entries`."""
        made: Tensor = _LookUp.apply(self.codebook, self.entries)  # type: ignore[no-untyped-call]
        return made

    def round_to(self, kind: str) -> None:
        """Round the codebook to whole numbers −127 … 127 times a power of two, or to float16."""
        with torch.no_grad():
            if kind == "int8" and self.codebook.any():
                unit = 2.0 ** float(torch.ceil(torch.log2(self.codebook.abs().max() / 127)))
                self.codebook.copy_(torch.round(self.codebook / unit) * unit + 0.0)
            if kind == "float16":
                self.codebook.copy_(self.codebook.half().float())
