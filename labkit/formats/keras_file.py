"""Keras's file: a ZIP with the layers in JSON and the weights in HDF5.

A Lambda layer keeps Python byte code in that JSON, and a layer's class may be named from any module. Keras refuses
the first in its safe mode; we refuse both, before Keras is even imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.formats.archive import read_zip
from labkit.formats.pt2_file import entries
from labkit.formats.reading import read_file

CHILD = "labkit.formats.tensorflow_child"
_FILES = {"metadata.json", "config.json", "model.weights.h5", "assets.json"}
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read(path: Path) -> bytes:
    """The file's bytes."""
    return read_file(path, "a Keras model")


def check(model: bytes, what: str) -> None:
    """Raise ModelFileError if it holds code, classes from outside Keras, or anything unexpected."""
    files = read_zip(model, what)
    missing = {"config.json", "model.weights.h5"} - set(files)
    if missing:
        raise ModelFileError(f"{what} is not a Keras model: {min(missing)} is missing")
    strange = {name for name in files if name not in _FILES and not name.startswith("assets/")}
    if strange:
        raise ModelFileError(f"{what} holds {min(strange)[:80]!r}, which no Keras model does: refused")
    if not files["model.weights.h5"].startswith(_HDF5):
        raise ModelFileError(f"{what}: its weights are not HDF5")
    try:
        _check_config(what, json.loads(files["config.json"]))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{what}: its config.json is not valid JSON: {error}") from None


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(2e9 + 8 * size), 20.0 + size / 5e6


def _check_config(what: str, config: Any) -> None:
    if not isinstance(config, dict) or "class_name" not in config:
        raise ModelFileError(f"{what} is not a Keras model: its config names no class")
    for key, value in entries(config):
        if key == "class_name" and value in ("Lambda", "__lambda__", "__bytes__", "TorchModuleWrapper"):
            raise ModelFileError(f"{what} has a {value} layer, which keeps Python code in the file: refused")
        if key == "class_name" and value in ("function", "__function__"):
            raise ModelFileError(f"{what} names a Python function instead of a layer: refused")
        if key == "module" and value is not None and str(value).split(".")[0] not in ("keras", "builtins"):
            raise ModelFileError(f"{what} wants code of {str(value)[:80]!r}, not of Keras: refused")
