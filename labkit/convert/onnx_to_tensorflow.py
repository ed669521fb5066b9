"""ONNX → TensorFlow: each operator is said in TensorFlow's words, and the result traced into a SavedModel."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.data import Dataset
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.variant import Variant, read_folder


@dataclass(frozen=True)
class OnnxToTensorFlow(Converter):
    """Write a SavedModel whose signature has the ONNX file's inputs and outputs, in the same layout.

    TensorFlow allows fewer characters in a name: what it does not becomes "_".
    """

    name: ClassVar[str] = "onnx_to_tensorflow"
    title: ClassVar[str] = "ONNX to TensorFlow"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    target: ClassVar[str] = "tensorflow"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow",)
    reproducible: ClassVar[bool] = False  # TensorFlow numbers its functions through the whole process
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Translate operator by operator (`onnx_as_tensorflow`), then save."""
        import onnx

        tf = get_runtime("tensorflow").engine()
        from labkit.convert.onnx_as_tensorflow import as_tensorflow

        module = as_tensorflow(onnx.load_model_from_string(variant.payload))
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=module.__call__)
            files = read_folder(Path(folder))
        return {
            "model": {name: content for name, content in files.items() if name != "fingerprint.pb"},
            "inputs": tuple(replace(spec, name=module.input_names[spec.name]) for spec in variant.inputs),
            "outputs": tuple(replace(spec, name=module.output_names[spec.name]) for spec in variant.outputs),
        }
