"""Changing a model's format, and proving that nothing else changed."""

from __future__ import annotations

from labkit.convert.parity import ParityReport, ParityRow, parity, tolerance
from labkit.convert.torch_to_onnx import ExportOnnx
from labkit.formats import load_onnx

__all__ = ["ExportOnnx", "ParityReport", "ParityRow", "load_onnx", "parity", "tolerance"]
