"""Changing a model's format, and proving that nothing else changed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from labkit.convert.conversion import Conversion, Hop, convert
from labkit.convert.converter import Converter
from labkit.convert.edges import CONVERTERS, find_path, find_paths, reachable
from labkit.convert.live import as_variant
from labkit.convert.onnx_to_openvino import OnnxToOpenVino
from labkit.convert.parity import ParityReport, ParityRow, parity, tolerance
from labkit.convert.save import check_out, save_as
from labkit.convert.torch_to_onnx import ExportOnnx
from labkit.convert.torch_to_pt2 import ExportPt2
from labkit.formats import load_onnx

__all__ = [
    "CONVERTERS",
    "Conversion",
    "Converter",
    "ExportOnnx",
    "ExportPt2",
    "Hop",
    "OnnxToOpenVino",
    "ParityReport",
    "ParityRow",
    "as_variant",
    "check_out",
    "convert",
    "find_path",
    "find_paths",
    "load_onnx",
    "parity",
    "reachable",
    "save_as",
    "tolerance",
]


class _Callable(ModuleType):
    """`labkit.convert` is this package and a function alike: calling the one calls the other."""

    def __call__(self, *arguments: Any, **options: Any) -> Conversion:
        return convert(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
