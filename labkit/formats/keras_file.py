"""Keras's file: a ZIP with the layers in JSON and the weights in HDF5.

The JSON says which classes to import from which modules, and with which arguments. A Lambda layer keeps Python byte
code there; others open files that are named there (a vocabulary, a SavedModel) or unpickle. Keras refuses some of
them in its safe mode, and has had to add to that list again and again. So ours is the other way round: the modules
and kinds of classes that Keras writes for a network, before Keras is even imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.formats.archive import read_zip
from labkit.formats.reading import objects, read_document, read_file

CHILD = "labkit.formats.tensorflow_child"
_FILES = {"metadata.json", "config.json", "model.weights.h5", "assets.json"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MODULES = re.compile(
    r"keras\.(layers|initializers|regularizers|constraints|optimizers(\.schedules)?|losses|metrics|dtype_policies"
    r"|quantizers|random)|keras\.src\.(models\.(functional|sequential|model)|ops\.\w+)"
)
"""Where the parts of a network are: under Keras's public names, or, where a class has none, under its own."""

_OF_KERAS_ITSELF = re.compile(r"Sequential|Functional|Model|\w*DTypePolicy(Map)?")
_DATA = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")
_CODE = {
    "Lambda": "keeps Python code in the file",
    "__lambda__": "keeps Python code in the file",
    "TorchModuleWrapper": "keeps a pickle in the file",
    "TFSMLayer": "reads another model from a path",
    "JaxLayer": "keeps Python code in the file",
    "FlaxLayer": "keeps Python code in the file",
}


def read(path: Path) -> bytes:
    """The file's bytes."""
    return read_file(path, "a Keras model")


def check(model: bytes, what: str) -> None:
    """Raise ModelFileError if it holds code, classes from outside Keras, or anything unexpected."""
    files = read_zip(model, what)
    check_files(files, files.get("model.weights.h5", b""), what)
    check_config(read_document(files["config.json"], f"{what}: its config.json"), what)


def check_files(names: Iterable[str], weights: bytes, what: str) -> None:
    """Raise ModelFileError unless these are the files of a Keras model; of `weights` the first bytes will do."""
    missing = {"config.json", "model.weights.h5"} - set(names)
    if missing:
        raise ModelFileError(f"{what} is not a Keras model: {min(missing)} is missing")
    strange = {name for name in names if name not in _FILES and not name.startswith("assets/")}
    if strange:
        raise ModelFileError(f"{what} holds {min(strange)[:80]!r}, which no Keras model does: refused")
    if not weights.startswith(_HDF5):
        raise ModelFileError(f"{what}: its weights are not HDF5")


def check_config(config: Any, what: str) -> None:
    """Raise ModelFileError for a config that names code, or files, or classes that are no part of a network."""
    if not isinstance(config, dict) or "class_name" not in config:
        raise ModelFileError(f"{what} is not a Keras model: its config names no class")
    used = {
        key: value for key, value in config.items() if key != "compile_config"
    }  # labkit never compiles it
    for each in objects(used):
        if "class_name" in each:
            _check_class(each, what)
        if isinstance(each.get("module"), str):
            _check_module(each["module"], each.get("class_name"), what)
        for key in ("vocabulary", "idf_weights"):
            if isinstance(each.get(key), str):
                raise ModelFileError(
                    f"{what} reads its {key} from {each[key][:80]!r}: refused, save it again"
                )


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(2e9 + 8 * size), 20.0 + size / 5e6


def _check_class(item: dict[str, Any], what: str) -> None:
    name, module, registered = str(item["class_name"]), item.get("module"), item.get("registered_name")
    if name in _CODE:
        raise ModelFileError(f"{what} has a {name} layer, which {_CODE[name]}: refused")
    if name in ("function", "__function__"):
        raise ModelFileError(f"{what} names a Python function instead of a layer: refused")
    if module is None and name in _DATA:
        return
    if not isinstance(module, str):
        raise ModelFileError(
            f"{what} does not say which module {name[:80]!r} is of: save it again with Keras 3"
        )
    _check_module(module, name, what)
    if not re.fullmatch(r"[A-Z]\w*", name):
        raise ModelFileError(f"{what} names {name[:80]!r}, which is no class of Keras: refused")
    if registered not in (None, name):
        raise ModelFileError(
            f"{what} has a {str(registered)[:80]!r}, a class of its author's own: refused, export it to ONNX there"
        )


def _check_module(module: str, name: Any, what: str) -> None:
    own = module in ("keras", "keras.models") and _OF_KERAS_ITSELF.fullmatch(str(name))
    if not own and not _MODULES.fullmatch(module):
        raise ModelFileError(
            f"{what} wants {str(name)[:80]!r} of {module[:80]!r}, no part of a network: refused"
        )
