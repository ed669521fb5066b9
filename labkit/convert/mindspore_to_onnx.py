"""MindSpore → ONNX, by MindSpore's own exporter, from a live Cell."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.finished_onnx import finished
from labkit.convert.torch_to_onnx import innermost, quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.base import muted
from labkit.technique import probe
from labkit.variant import Variant


@dataclass(frozen=True)
class MindSporeToOnnx(Converter):
    """Write a MindSpore Cell as one ONNX file; the Cell is set to inference mode first."""

    name: ClassVar[str] = "mindspore_to_onnx"
    title: ClassVar[str] = "MindSpore to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("mindspore",)
    target: ClassVar[str] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("mindspore",)
    install: ClassVar[str] = "pip install 'labkit[mindspore]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Export with an example of two samples and the free dimensions named."""
        import onnx

        mindspore = get_runtime("mindspore").engine()
        feeds = probe(variant)
        axes = {
            spec.name: {axis: size for axis, size in enumerate(spec.shape) if isinstance(size, str)}
            for spec in variant.inputs
        }
        with tempfile.TemporaryDirectory() as folder, quiet(), muted():
            path = Path(folder) / "model.onnx"
            try:
                mindspore.onnx.export(
                    copy.deepcopy(variant.model).set_train(False),  # a Cell can be exported once
                    *(mindspore.Tensor(feeds[spec.name]) for spec in variant.inputs),
                    file_name=str(path),
                    input_names=[spec.name for spec in variant.inputs],
                    output_names=[spec.name for spec in variant.outputs],
                    dynamic_axes=axes,
                )
                model = onnx.load_model(path)
            except Exception as error:
                raise TechniqueError(
                    f"MindSpore cannot export {variant.name!r}: {innermost(error)}"
                ) from None
        return finished(variant, model)
