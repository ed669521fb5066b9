"""Model files: opening one that somebody else wrote, at a safe distance, whatever its format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["READERS", "format_of", "inspect", "load_file", "load_onnx"]

if TYPE_CHECKING:
    from labkit.formats.opening import READERS, format_of, inspect, load_file, load_onnx


def __getattr__(name: str) -> Any:  # the children, which start here too, need none of it
    if name not in __all__:
        raise AttributeError(f"module 'labkit.formats' has no attribute {name!r}")
    return getattr(importlib.import_module("labkit.formats.opening"), name)
