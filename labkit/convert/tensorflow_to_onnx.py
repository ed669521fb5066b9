"""SavedModel → ONNX, by tf2onnx: variables become constants, then operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.finished_onnx import finished, traced
from labkit.data import Dataset
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.tensorflow import open_tensorflow
from labkit.variant import Variant


@dataclass(frozen=True)
class TensorFlowToOnnx(Converter):
    """Write a SavedModel's signature as one ONNX file with a free batch."""

    name: ClassVar[str] = "tensorflow_to_onnx"
    title: ClassVar[str] = "SavedModel to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("tensorflow",)
    target: ClassVar[str] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow", "tf2onnx")
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Wrap the signature in a function of its inputs in order, and convert that."""
        tf = get_runtime("tensorflow").engine()
        owner, call = open_tensorflow(variant, tf)
        names = [spec.name for spec in variant.inputs]

        def in_order(*tensors: Any) -> list[Any]:
            results = call(dict(zip(names, tensors, strict=True)))
            return [results[spec.name] for spec in variant.outputs]

        made = finished(variant, traced(variant, tf, in_order))
        del owner  # the weights were needed until here
        return made
