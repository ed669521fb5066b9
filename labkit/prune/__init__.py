"""Pruning: leave out what matters least.

Single weights (`PruneMagnitude`) or whole channels (`PruneChannels`), which also saves time.
"""

from __future__ import annotations

from labkit.prune.channels import PruneChannels
from labkit.prune.magnitude import PruneMagnitude

__all__ = ["PruneChannels", "PruneMagnitude"]
