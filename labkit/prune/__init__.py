"""Pruning: leave out what matters least.

Single weights (`PruneMagnitude`, `PruneWeights`) or whole channels (`PruneChannels`), which also saves time.
"""

from __future__ import annotations

from labkit.prune.channels import PruneChannels
from labkit.prune.magnitude import PruneMagnitude
from labkit.prune.weights import PruneWeights

__all__ = ["PruneChannels", "PruneMagnitude", "PruneWeights"]
