"""Looking into a model file: what it holds and what it costs, told without running it, whatever its format."""

from __future__ import annotations

from labkit.inspection.drawing import draw_graph
from labkit.inspection.inspecting import inspect_file
from labkit.inspection.record import Inspection, Layer, Stored, TensorInfo
from labkit.inspection.table import layer_table, summary

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
