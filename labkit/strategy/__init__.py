"""Strategy: requirements, the choice among measured candidates, and `optimize`, which does all of it."""

from __future__ import annotations

from labkit.strategy.choose import Decision, Rejection, choose
from labkit.strategy.grid import grid
from labkit.strategy.optimize import Outcome, fit_to, optimize
from labkit.strategy.requirement import Limits, Requirement, load_requirement, sheets

__all__ = [
    "Decision",
    "Limits",
    "Outcome",
    "Rejection",
    "Requirement",
    "choose",
    "fit_to",
    "grid",
    "load_requirement",
    "optimize",
    "sheets",
]
