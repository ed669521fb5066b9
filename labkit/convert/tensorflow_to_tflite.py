"""SavedModel → TensorFlow Lite: the graph flattened into a list of operators, optionally in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.torch_to_onnx import quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.base import muted
from labkit.runtimes.tensorflow import load_saved_model
from labkit.technique import knob
from labkit.variant import Array, Variant


@dataclass(frozen=True)
class TensorFlowToTflite(Converter):
    """Write one `.tflite` file with a free batch; `float16` halves it, `int8` quantizes it on calibration samples."""

    name: ClassVar[str] = "tensorflow_to_tflite"
    title: ClassVar[str] = "SavedModel to TensorFlow Lite"
    takes: ClassVar[tuple[str, ...]] = ("tensorflow",)
    target: ClassVar[str] = "tflite"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow", "ai_edge_litert")
    install: ClassVar[str] = "pip install 'labkit[tensorflow]'"

    precision: str = knob(
        "float32", "of the weights, and with int8 of the arithmetic", choices=("float32", "float16", "int8")
    )
    samples: int = knob(128, "calibration samples, for int8", min=1, max=10_000)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also ask for a dataset where the ranges of activations must be seen."""
        super().requires(variant, dataset)
        if self.precision == "int8" and dataset is None:
            raise TechniqueError(
                f"{self.name} with precision='int8' needs a dataset to calibrate on: pass one"
            )

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Let TensorFlow's own converter do it, with builtin operators only."""
        tf = get_runtime("tensorflow").engine()
        # Not from_saved_model: it leaves Keras's weights as variables that nobody initialises, and the result is NaN.
        owner = load_saved_model(variant, tf)
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [owner.signatures["serving_default"]], owner
        )
        if self.precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if self.precision == "int8" and dataset is not None:
            converter.representative_dataset = lambda: self._calibration(variant, dataset)
        try:
            with quiet(), muted():
                return {"model": bytes(converter.convert())}
        except Exception as error:  # tensorflow's own kinds
            lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()]
            reason = (lines or [str(error)])[0][:250]
            raise TechniqueError(f"TensorFlow Lite cannot hold {variant.name!r}: {reason}") from None

    def _calibration(self, variant: Variant, dataset: Dataset) -> Iterator[dict[str, Array]]:
        split = dataset.split("calibration")
        for index in range(min(self.samples, len(split))):
            yield variant.feeds(split.take(slice(index, index + 1)).inputs)
