"""Changing a model's format, and proving that nothing else changed."""

from __future__ import annotations

from labkit.convert.onnx_file import inspect, load_onnx
from labkit.convert.parity import ParityReport, ParityRow, parity, tolerance
from labkit.convert.torch_to_onnx import ExportOnnx

__all__ = ["ExportOnnx", "ParityReport", "ParityRow", "inspect", "load_onnx", "parity", "tolerance"]
