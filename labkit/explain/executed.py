"""What an engine tells of the operators that it ran."""

from __future__ import annotations

from dataclasses import dataclass

LAYER, CONVERSION, DYNAMIC, OTHER = "layer", "conversion", "dynamic", "other"
"""The kinds of work: multiplying with weights · changing format or layout · choosing grids · all else."""


@dataclass(frozen=True)
class Executed:
    """What an engine tells of one operator: its time in each run, [runs] in ms, and whether it put it in itself."""

    kind: str
    name: str
    work: str
    precision: str
    run_ms: tuple[float, ...]
