"""The formats that a variant may be in: what its `model` is, and what its files are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.errors import ConfigError, nearest


@dataclass(frozen=True)
class Format:
    """One format; `kind` says what `Variant.model` holds.

    "object": a live model of a framework. "file": the bytes of one file, which ends in `suffix`. "folder": several
    files, relative name → bytes.
    """

    name: str
    title: str
    kind: str
    suffix: str = ""
    main: str = ""


FORMATS = (
    Format("torch", "PyTorch module", "object", ".safetensors"),
    Format("pt2", "PyTorch exported program", "file", ".pt2"),
    Format("onnx", "ONNX", "file", ".onnx"),
    Format("openvino", "OpenVINO IR", "folder", ".xml", main="model.xml"),
    Format("keras", "Keras", "file", ".keras"),
    Format("tensorflow", "TensorFlow SavedModel", "folder", main="saved_model.pb"),
    Format("tflite", "TensorFlow Lite", "file", ".tflite"),
    Format("mindspore", "MindSpore Cell", "object"),
    Format("tensorrt", "TensorRT engine", "file", ".engine"),
)


def get_format(name: str) -> Format:
    """The format of that name; ConfigError with a suggestion otherwise."""
    for each in FORMATS:
        if each.name == name:
            return each
    raise ConfigError(f"unknown format {name!r}; {nearest(name, [each.name for each in FORMATS])}")


def joined(model: Any) -> bytes:
    """The bytes of a file, or of a folder's files one after the other, in the order of their names."""
    if isinstance(model, Mapping):
        return b"".join(model[name] for name in sorted(model))
    return bytes(model)
