"""Strategy: requirements, what is worth measuring, and the choice among measured candidates."""

from __future__ import annotations

from labkit.strategy.decision import Decision, Rejection, choose
from labkit.strategy.grid import Built, grid
from labkit.strategy.outcome import Outcome
from labkit.strategy.requirement import OBJECTIVES, Limits, Requirement, load_requirement, sheets

__all__ = [
    "OBJECTIVES",
    "Built",
    "Decision",
    "Limits",
    "Outcome",
    "Rejection",
    "Requirement",
    "choose",
    "grid",
    "load_requirement",
    "sheets",
]
