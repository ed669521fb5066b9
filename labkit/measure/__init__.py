"""Measuring honestly: `measure` runs candidates and makes records, `compare` turns records into claims."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from labkit.measure.candidate import Candidate
from labkit.measure.comparison import Comparison, compare
from labkit.measure.measuring import measure
from labkit.measure.pair import Pair
from labkit.measure.protocol import Protocol
from labkit.measure.records import Measurement, Records

__all__ = ["Candidate", "Comparison", "Measurement", "Pair", "Protocol", "Records", "compare", "measure"]


class _Callable(ModuleType):
    """`labkit.measure` is this package and a function alike: calling the one calls the other."""

    def __call__(self, *arguments: Any, **options: Any) -> Records:
        return measure(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
