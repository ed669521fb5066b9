"""Quantization: the same network in fewer bits. The arithmetic is here to be read."""

from __future__ import annotations

from labkit.quantize.arithmetic import Grid, choose_scale, dequantize, quantize, weight_grid
from labkit.quantize.report import QuantizationReport, quantization_report
from labkit.quantize.static import QuantizeInt8

__all__ = [
    "Grid",
    "QuantizationReport",
    "QuantizeInt8",
    "choose_scale",
    "dequantize",
    "quantization_report",
    "quantize",
    "weight_grid",
]
