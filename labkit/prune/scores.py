"""What a single weight is worth: one number each, and those with the smallest are zeroed first.

magnitude   |w|: what is nearly zero already changes least (Han et al. 2015)
lamp        w² / Σ v² over all v of the same layer with |v| ≥ |w|: with one threshold for the whole network,
            each layer gets a share of its own, and never dies out (Lee et al. 2021)
lamp_per_bit
            the same divided by the bits that the weight will take in a coded file: one in a row and a column that have
            kept many others is cheaper to point at, so the loss per byte is what is least
taylor      (g·w)², the mean over batches: what the loss is to first order with w and without (Molchanov et al.
            2019, section 3.1); g is the gradient of the loss
movement    −Σ g·w over the steps of a training: whether w is on its way to zero or away from it. A large weight
            that shrinks is worth less than a small one that grows (Sanh et al. 2020)
random      the control: a criterion that does not beat it has learned nothing about the weights
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Sequence[Tensor]
_VALUE_BITS = 3  # for the value itself, one of 8


def gradients(weights: Weights) -> list[Tensor]:
    """The gradient of each weight after a backward pass; zeros for one that the loss does not depend on."""
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]


class Criterion(ABC):
    """Scores for the weights of a network, in a fixed order of its layers; `seed` matters to "random" alone."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def watch(self, weights: Weights, gradients: Weights) -> None:
        """See one batch: the gradients of the loss at these weights. Criteria that need none do nothing."""
        return

    @abstractmethod
    def scores(self, weights: Weights) -> list[Tensor]:
        """One score a weight, each tensor of its weight's shape; only their order counts."""


class Magnitude(Criterion):
    """|w|."""

    def scores(self, weights: Weights) -> list[Tensor]:
        """The absolute values."""
        return magnitudes(weights)


def magnitudes(weights: Weights) -> list[Tensor]:
    """|w|, of the same shapes, without a gradient."""
    return [weight.detach().abs() for weight in weights]


class Lamp(Criterion):
    """The layer-adaptive magnitude; the largest weight of every layer has score 1."""

    def scores(self, weights: Weights) -> list[Tensor]:
        """w² over the sum of all squares of the layer that are at least as large. In float64: [..] → [..]."""
        return [_lamp(weight.detach()) for weight in weights]


def _lamp(weight: Tensor) -> Tensor:
    squares, order = weight.double().square().flatten().sort(stable=True)
    at_least_as_large = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / at_least_as_large.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.view(weight.shape)


class LampPerBit(Lamp):
    """LAMP by the bits of a weight, −log2 of how likely it is kept: its row's density times its column's, by all's."""

    def scores(self, weights: Weights) -> list[Tensor]:
        """Those of LAMP, divided by the bits. In float64: [out, in, …] → the same shape."""
        return [score / _bits(weight) for score, weight in zip(super().scores(weights), weights, strict=True)]


def _bits(weight: Tensor) -> Tensor:
    kept = (weight.detach().flatten(1) != 0).double()
    rows, columns = (_shares(kept.sum(axis), kept.shape[axis]) for axis in (1, 0))
    likely = rows[:, None] * columns / _shares(kept.sum(), kept.numel())
    return (_VALUE_BITS - likely.clamp(max=1.0).log2()).view(weight.shape)


def _shares(kept: Tensor, of: int) -> Tensor:
    return (kept + 0.5) / (of + 1)  # never 0 or 1


class Taylor(Criterion):
    """The mean of (g·w)² over the batches seen since the scores were last asked for, in float32.

    Half the digits would not do: the square of a small product is 0 in float16.
    """

    sums: list[Tensor] | None = None

    def watch(self, weights: Weights, gradients: Weights) -> None:
        """Add one batch."""
        self.sums = _added(
            self.sums, [(w.float() * g).square() for w, g in zip(weights, gradients, strict=True)]
        )

    def scores(self, weights: Weights) -> list[Tensor]:
        """The sums, whose order is that of the means; the next batch begins new ones."""
        assert self.sums is not None, "no batch was seen"  # noqa: S101 - whoever asks has shown it some
        sums, self.sums = self.sums, None
        return sums


class Movement(Criterion):
    """−Σ g·w over all batches seen."""

    sums: list[Tensor] | None = None

    def watch(self, weights: Weights, gradients: Weights) -> None:
        """Add one step."""
        self.sums = _added(self.sums, [-w * g for w, g in zip(weights, gradients, strict=True)])

    def scores(self, weights: Weights) -> list[Tensor]:
        """The sums so far."""
        assert self.sums is not None, "no batch was seen"  # noqa: S101 - whoever asks has shown it some
        return self.sums


def _added(sums: list[Tensor] | None, terms: list[Tensor]) -> list[Tensor]:
    return terms if sums is None else [total + term for total, term in zip(sums, terms, strict=True)]


class Random(Criterion):
    """Numbers that know nothing."""

    def scores(self, weights: Weights) -> list[Tensor]:
        """Uniform in [0, 1), drawn anew each time."""
        return [torch.rand(weight.shape, generator=self.generator) for weight in weights]


CRITERIA: Mapping[str, type[Criterion]] = {
    "magnitude": Magnitude,
    "lamp": Lamp,
    "lamp_per_bit": LampPerBit,
    "taylor": Taylor,
    "movement": Movement,
    "random": Random,
}
