"""Why is it not faster? The time of each operator, and the cause in words."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from labkit.explain.causes import CAUSES
from labkit.explain.explaining import explain
from labkit.explain.explanation import Explanation
from labkit.explain.finding import Finding
from labkit.explain.plot import plot_time
from labkit.explain.profile import Operator, Profile, profile

__all__ = ["CAUSES", "Explanation", "Finding", "Operator", "Profile", "explain", "plot_time", "profile"]


class _Callable(ModuleType):
    """`labkit.explain` is this package and a function alike: calling the one calls the other."""

    def __call__(self, *arguments: Any, **options: Any) -> Explanation:
        return explain(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
