"""Keras → SavedModel: the layers traced into TensorFlow's graph, with one signature to call."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.torch_to_onnx import innermost
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.tensorflow import keras_function, open_keras, plain, signature
from labkit.variant import Variant, read_folder


@dataclass(frozen=True)
class KerasToTensorFlow(Converter):
    """Write a SavedModel whose signature has the Keras model's own names for what goes in and out."""

    name: ClassVar[str] = "keras_to_tensorflow"
    title: ClassVar[str] = "Keras to SavedModel"
    takes: ClassVar[tuple[str, ...]] = ("keras",)
    target: ClassVar[str] = "tensorflow"
    packages: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")
    reproducible: ClassVar[bool] = False  # TensorFlow numbers its functions through the whole process
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Trace the model on its named inputs, and save that one function."""
        tf = get_runtime("tensorflow").engine()
        model = open_keras(variant)

        inputs, outputs = (
            tuple(replace(spec, name=plain(spec.name)) for spec in specs)
            for specs in (variant.inputs, variant.outputs)
        )
        named = replace(variant, inputs=inputs, outputs=outputs, preprocessing={})
        module = tf.Module()
        module.model = model
        module.call = tf.function(keras_function(model, named, tf), input_signature=signature(named, tf))
        with tempfile.TemporaryDirectory() as folder:
            try:
                tf.saved_model.save(module, folder, signatures=module.call)
            except Exception as error:
                raise TechniqueError(f"Keras cannot export {variant.name!r}: {innermost(error)}") from None
            files = read_folder(Path(folder))
        model_files = {name: content for name, content in files.items() if name != "fingerprint.pb"}
        return {"model": model_files, "inputs": inputs, "outputs": outputs}
