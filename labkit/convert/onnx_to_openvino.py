"""ONNX → OpenVINO: the same graph in OpenVINO's operators, weights kept in the precision that they have."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import get_runtime
from labkit.runtimes.openvino import read_openvino
from labkit.variant import Variant


@dataclass(frozen=True)
class OnnxToOpenVino(Converter):
    """Write OpenVINO's two files, `model.xml` and `model.bin`; a quantized (QDQ) model stays real int8."""

    name: ClassVar[str] = "onnx_to_openvino"
    title: ClassVar[str] = "ONNX to OpenVINO"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    target: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    install: ClassVar[str] = "pip install 'labkit[openvino]'"

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Read the graph, name its ports as they were, and save without rounding the weights to float16."""
        openvino = get_runtime("openvino").engine()
        try:
            model = read_openvino(openvino.Core(), openvino, variant)
        except Exception as error:
            raise TechniqueError(f"OpenVINO cannot read {variant.name!r}: {str(error)[-300:]}") from None
        _name_by_place(model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(model, str(path), compress_to_fp16=False)
            files = {each.name: each.read_bytes() for each in (path, path.with_suffix(".bin"))}
        return {"model": files}


def _name_by_place(model: Any) -> None:
    """Name the operators that OpenVINO numbered itself by their place, so that the same model gives the same bytes."""
    for place, operator in enumerate(model.get_ordered_ops()):
        kind, _, number = operator.get_friendly_name().rpartition("_")
        if number.isdigit() and kind == operator.get_type_name():
            operator.set_friendly_name(f"{kind}#{place}")
