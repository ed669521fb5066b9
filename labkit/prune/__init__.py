"""Pruning: leave out what matters least.

Single weights (`PruneMagnitude`, `PruneWeights`) or whole channels (`PruneChannels`), which also saves time;
`read_structure` tells which channels hang together, and what stays whole and why.
`scan_layers` tells which layers mind losing weights, `scan_channels` which mind losing channels;
`draw_tickets` finds the few that would have been enough; `Widths` makes each group as wide as you say.
"""

from __future__ import annotations

from labkit.prune.channel_sensitivity import scan_channels
from labkit.prune.channels import PruneChannels
from labkit.prune.dead import RemoveDeadUnits
from labkit.prune.lottery import draw_tickets
from labkit.prune.magnitude import PruneMagnitude
from labkit.prune.sensitivity import scan_layers
from labkit.prune.structure import read_structure
from labkit.prune.weights import PruneWeights
from labkit.prune.widths import Widths

__all__ = [
    "PruneChannels",
    "PruneMagnitude",
    "PruneWeights",
    "RemoveDeadUnits",
    "Widths",
    "draw_tickets",
    "read_structure",
    "scan_channels",
    "scan_layers",
]
