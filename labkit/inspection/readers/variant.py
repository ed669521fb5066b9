"""A saved labkit variant: its model's file, with the inputs and outputs that `variant.json` declares."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from labkit.errors import ModelFileError
from labkit.files import read_json
from labkit.inspection.readers import READERS
from labkit.inspection.record import Inspection, TensorInfo
from labkit.inspection.request import Request


def read(request: Request) -> Inspection:
    """The inspection of the variant's own file. Its checksum is not compared: loading the variant does that."""
    document = read_json(request.file / "variant.json", ModelFileError)
    name, kind = str(document.get("file")), str(document.get("format"))
    path = request.file / name
    if path.name != name or path.is_symlink():
        raise ModelFileError(f"variant.json names {name!r}: refused, it may lead out of the folder")
    if not path.exists():
        raise ModelFileError(f"{name!r}, which variant.json names, is not there: save the variant again")
    reader = "safetensors" if kind == "torch" else kind
    if reader not in READERS or reader == "variant":
        raise ModelFileError(f"variant.json names the format {kind!r}, which cannot be inspected")
    if reader == "openvino":
        path = path / "model.xml"
    module = importlib.import_module(f"labkit.inspection.readers.{READERS[reader]}")
    found: Inspection = module.read(dataclasses.replace(request, path=str(path)))
    return dataclasses.replace(
        found,
        file=request.path,
        format=f"labkit variant of {found.format}",
        inputs=_infos(document["inputs"]),
        outputs=_infos(document["outputs"]),
    )


def _infos(items: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(item["name"], item["dtype"], tuple(item["shape"])) for item in items)
