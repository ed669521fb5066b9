"""The parity microscope: the first operator whose result departs between two forms of one model."""

from __future__ import annotations

from labkit.microscope.microscope import microscope
from labkit.microscope.plot import plot_departures
from labkit.microscope.report import Departure, MicroscopeReport, Row
from labkit.microscope.taps import Operator, Tap, taps

__all__ = [
    "Departure",
    "MicroscopeReport",
    "Operator",
    "Row",
    "Tap",
    "microscope",
    "plot_departures",
    "taps",
]
