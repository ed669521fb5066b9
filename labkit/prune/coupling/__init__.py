"""Which channels of a network hang together, read off its graph, whatever the architecture."""

from __future__ import annotations

from labkit.prune.coupling.coupling import Coupling, find_coupling
from labkit.prune.coupling.group import Group, Member

__all__ = ["Coupling", "Group", "Member", "find_coupling"]
