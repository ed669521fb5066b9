"""Keras → ONNX: the layers traced into TensorFlow's graph, and that converted operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.finished_onnx import finished, traced
from labkit.data import Dataset
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.tensorflow import keras_function, open_keras
from labkit.variant import Variant


@dataclass(frozen=True)
class KerasToOnnx(Converter):
    """Write a Keras model as one ONNX file with a free batch; images stay channels-last, as Keras has them."""

    name: ClassVar[str] = "keras_to_onnx"
    title: ClassVar[str] = "Keras to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("keras",)
    target: ClassVar[str] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("keras", "tf2onnx")
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Open in safe mode, trace, and name inputs and outputs as they were."""
        tf = get_runtime("tensorflow").engine()
        function = keras_function(open_keras(variant), variant, tf)

        def in_order(*tensors: Any) -> list[Any]:
            return list(function(*tensors).values())

        return finished(variant, traced(variant, tf, in_order))
