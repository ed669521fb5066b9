"""Quantization: the same network in fewer bits. The arithmetic is here to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.quantize.arithmetic.grid import Grid, choose_scale, dequantize, quantize, weight_grid
from labkit.quantize.dynamic import QuantizeDynamic
from labkit.quantize.equalize import Equalize
from labkit.quantize.half import StoreHalf
from labkit.quantize.mixed import QuantizeMixed
from labkit.quantize.report import QuantizationReport, quantization_report
from labkit.quantize.static import QuantizeInt8
from labkit.quantize.weight_only import QuantizeWeights

if TYPE_CHECKING:
    from labkit.quantize.aware import QuantizeAware

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


def __getattr__(name: str) -> Any:
    """Training needs PyTorch: it is imported when QuantizeAware is first asked for."""
    if name != "QuantizeAware":
        raise AttributeError(f"module 'labkit.quantize' has no attribute {name!r}")
    from labkit.quantize.aware import QuantizeAware

    return QuantizeAware
