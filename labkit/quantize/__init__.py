"""Quantization: the same network in fewer bits. The arithmetic is here to be read."""

from __future__ import annotations

from labkit.quantize.arithmetic import choose_scale, dequantize, quantize
from labkit.quantize.static import QuantizationReport, QuantizeInt8, quantization_report

__all__ = [
    "QuantizationReport",
    "QuantizeInt8",
    "choose_scale",
    "dequantize",
    "quantization_report",
    "quantize",
]
