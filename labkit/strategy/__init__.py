"""Strategy: requirements, what is worth measuring, and the choice among measured candidates."""

from __future__ import annotations

from labkit.strategy.confirmation import Confirmation, confirm
from labkit.strategy.decision import Decision, Rejection, choose
from labkit.strategy.fit import assumed, doubt, fit_to
from labkit.strategy.grid import Built, grid
from labkit.strategy.outcome import Outcome
from labkit.strategy.requirement import OBJECTIVES, Limits, Requirement, load_requirement, sheets

__all__ = [
    "OBJECTIVES",
    "Built",
    "Confirmation",
    "Decision",
    "Limits",
    "Outcome",
    "Rejection",
    "Requirement",
    "assumed",
    "choose",
    "confirm",
    "doubt",
    "fit_to",
    "grid",
    "load_requirement",
    "sheets",
]
