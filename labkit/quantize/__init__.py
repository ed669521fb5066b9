"""Quantization: the same network in fewer bits. The arithmetic is here to be read."""

from __future__ import annotations

from labkit.quantize.arithmetic import Grid, choose_scale, dequantize, quantize, weight_grid
from labkit.quantize.dynamic import QuantizeDynamic
from labkit.quantize.equalize import Equalize
from labkit.quantize.half import StoreHalf
from labkit.quantize.mixed import QuantizeMixed
from labkit.quantize.qat import QuantizeAware
from labkit.quantize.report import QuantizationReport, quantization_report
from labkit.quantize.static import QuantizeInt8
from labkit.quantize.weight_only import QuantizeWeights

__all__ = [
    "Equalize",
    "Grid",
    "QuantizationReport",
    "QuantizeAware",
    "QuantizeDynamic",
    "QuantizeInt8",
    "QuantizeMixed",
    "QuantizeWeights",
    "StoreHalf",
    "choose_scale",
    "dequantize",
    "quantization_report",
    "quantize",
    "weight_grid",
]
