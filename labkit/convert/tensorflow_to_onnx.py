"""SavedModel → ONNX, by tf2onnx: variables become constants, then operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.from_tensorflow import OPSET, finished
from labkit.convert.torch_to_onnx import innermost, quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.base import muted
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
        import tf2onnx

        owner, call = open_tensorflow(variant, tf)
        names = [spec.name for spec in variant.inputs]
        outputs = [spec.name for spec in variant.outputs]
        signature = [
            tf.TensorSpec(
                [None if isinstance(size, str) else size for size in spec.shape], spec.dtype, spec.name
            )
            for spec in variant.inputs
        ]

        def function(*tensors: Any) -> list[Any]:
            results = call(dict(zip(names, tensors, strict=True)))
            return [results[name] for name in outputs]

        with quiet(), muted():
            try:
                traced = tf.function(function, input_signature=signature)
                model, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
            except Exception as error:
                raise TechniqueError(f"tf2onnx cannot convert {variant.name!r}: {innermost(error)}") from None
        del owner
        return finished(variant, model)
