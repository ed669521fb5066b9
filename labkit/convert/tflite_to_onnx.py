"""TensorFlow Lite → ONNX, by tf2onnx: each operator of the flat list becomes one or a few of ONNX's."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.finished_onnx import OPSET, finished
from labkit.convert.torch_to_onnx import innermost, quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.base import muted
from labkit.variant import Variant


@dataclass(frozen=True)
class TfliteToOnnx(Converter):
    """Write a `.tflite` file as one ONNX file with a free batch."""

    name: ClassVar[str] = "tflite_to_onnx"
    title: ClassVar[str] = "TensorFlow Lite to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("tflite",)
    target: ClassVar[str] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow", "tf2onnx", "ai_edge_litert")
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Convert by position: the names inside a flatbuffer are not those of its signature."""
        get_runtime("tensorflow").engine()
        import tf2onnx

        with tempfile.TemporaryDirectory() as folder, quiet(), muted():
            path = Path(folder) / "model.tflite"
            path.write_bytes(variant.payload)
            try:
                model, _ = tf2onnx.convert.from_tflite(str(path), opset=OPSET)
            except Exception as error:
                raise TechniqueError(f"tf2onnx cannot convert {variant.name!r}: {innermost(error)}") from None
        return finished(variant, model)
