"""The parity microscope: the first operator whose result departs between two forms of one model."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

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


class _Callable(ModuleType):
    """`labkit.microscope` is this package and a function alike: calling the one calls the other."""

    def __call__(self, *arguments: Any, **options: Any) -> MicroscopeReport:
        return microscope(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
