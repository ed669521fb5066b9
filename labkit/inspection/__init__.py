"""Looking into a model file: what it holds and what it costs, told without running it, whatever its format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Inspection": "record",
    "Layer": "record",
    "Stored": "record",
    "TensorInfo": "record",
    "draw_graph": "drawing",
    "inspect_file": "inspecting",
    "layer_table": "table",
    "summary": "table",
}

__all__ = [
    "Inspection",
    "Layer",
    "Stored",
    "TensorInfo",
    "draw_graph",
    "inspect_file",
    "layer_table",
    "summary",
]

if TYPE_CHECKING:
    from labkit.inspection.drawing import draw_graph
    from labkit.inspection.inspecting import inspect_file
    from labkit.inspection.record import Inspection, Layer, Stored, TensorInfo
    from labkit.inspection.table import layer_table, summary


def __getattr__(name: str) -> Any:  # the child, which starts here too, needs few of them
    if name not in _HOME:
        raise AttributeError(f"module 'labkit.inspection' has no attribute {name!r}")
    return getattr(importlib.import_module(f"labkit.inspection.{_HOME[name]}"), name)
