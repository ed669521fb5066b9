"""PyTorch → exported program: the operations that the forward pass calls, written down without its Python code."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.convert.torch_to_onnx import check_not_training, dynamic_shapes, example, innermost, quiet
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.formats.pt2_file import bare
from labkit.progress import Progress
from labkit.variant import Variant


@dataclass(frozen=True)
class ExportPt2(Converter):
    """Write a PyTorch variant as a `.pt2` archive with a free batch: graph in JSON, weights as raw bytes, no pickle."""

    name: ClassVar[str] = "export_pt2"
    title: ClassVar[str] = "Export to .pt2"
    takes: ClassVar[tuple[str, ...]] = ("torch",)
    target: ClassVar[str] = "pt2"

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse a model in training mode."""
        super().requires(variant, dataset)
        check_not_training(variant)

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Trace, write, and drop the sample inputs and the traces of this machine."""
        import torch

        buffer = io.BytesIO()
        with quiet():
            try:
                program = torch.export.export(
                    variant.model, example(variant, dataset), dynamic_shapes=dynamic_shapes(variant)
                )
                torch.export.save(program, buffer)
            except Exception as error:
                raise TechniqueError(f"PyTorch cannot export {variant.name!r}: {innermost(error)}") from None
        return {"model": bare(buffer.getvalue(), variant.name)}
