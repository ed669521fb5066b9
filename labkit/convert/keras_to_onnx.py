"""Keras → ONNX, by Keras's own export."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from labkit.convert.converter import Converter
from labkit.convert.from_tensorflow import OPSET, finished
from labkit.convert.torch_to_onnx import innermost, quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.base import muted
from labkit.runtimes.tensorflow import open_keras
from labkit.technique import probe
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
        """Open in safe mode, export, name inputs and outputs as they were."""
        import onnx

        get_runtime("tensorflow").engine()
        with tempfile.TemporaryDirectory() as folder, quiet(), muted():
            path = Path(folder) / "model.onnx"
            try:
                keras_model = open_keras(variant)
                keras_model(_zeros(variant))  # a Sequential wants to be called before it can be exported
                keras_model.export(str(path), format="onnx", opset_version=OPSET, verbose=False)
                model = onnx.load_model(path)
            except Exception as error:
                raise TechniqueError(f"Keras cannot export {variant.name!r}: {innermost(error)}") from None
        return finished(variant, model)


def _zeros(variant: Variant) -> Any:
    feeds = probe(variant)
    arrays = [np.zeros_like(feeds[spec.name]) for spec in variant.inputs]
    return arrays if len(arrays) > 1 else arrays[0]
