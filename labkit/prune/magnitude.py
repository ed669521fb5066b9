"""Magnitude pruning: set the smallest weights to zero (LeCun et al. 1989; Han et al. 2015).

    P(w) = w  if |w| ≥ θ,  else 0

θ is the magnitude below which a fraction `sparsity` of the weights lies. What it does *not* give: speed, or
a smaller plain file. A dense kernel multiplies by zero as carefully as by anything else, and 0.0 takes four
bytes like every float32. `nonzero_parameters` tells that something happened; to turn it into bytes, encode
the weights, and to turn it into time, remove whole channels (PruneChannels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labkit.prune.weights import ZeroesWeights


@dataclass(frozen=True)
class PruneMagnitude(ZeroesWeights):
    """Zero the smallest weights of all convolutions and linear layers; biases and batch norms stay.

    Neither faster nor smaller as a dense file: only `nonzero_parameters` falls. Exactly
    round(sparsity · n) of n weights are zero, after fine-tuning too.
    """

    name: ClassVar[str] = "prune_magnitude"
    title: ClassVar[str] = "Magnitude pruning (zeros; no speed by itself)"
