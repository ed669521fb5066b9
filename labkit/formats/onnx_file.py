"""ONNX files: their bytes, and what labkit writes into them beside the graph.

Three entries of ONNX's `metadata_props` let a single file carry what a variant knows: `labkit.task`,
`labkit.labels` and `labkit.preprocessing`, each in JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import ConfigError, ModelFileError
from labkit.formats.external import gathered
from labkit.formats.reading import read_file
from labkit.task import get_task
from labkit.variant import Variant, read_preprocessing

if TYPE_CHECKING:
    import onnx

CHILD = "labkit.formats.onnx_child"


def read(path: Path) -> bytes:
    """The file's bytes, with weights that lie in files beside it put back in."""
    return gathered(path, read_file(path, "an ONNX file"))


def check(model: bytes, what: str) -> None:
    """Nothing can be told of an ONNX file without parsing it, and that is the child's work."""


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(200e6 + 6 * size), 0.8 + size / 20e6


def write_metadata(model: onnx.ModelProto, variant: Variant) -> None:
    """Store task, labels and preprocessing in `model`: `load_onnx` then restores them from the file alone."""
    import onnx

    preprocessing = {name: dataclasses.asdict(value) for name, value in variant.preprocessing.items()}
    known = {"task": variant.task, "labels": list(variant.labels), "preprocessing": preprocessing}
    kept = {entry.key: entry.value for entry in model.metadata_props}
    entries = {f"labkit.{key}": json.dumps(value, sort_keys=True) for key, value in known.items()}
    onnx.helper.set_model_props(model, {**kept, **entries})


def described(variant: Variant) -> bytes:
    """The bytes of an ONNX variant, with the metadata that tell what it knows; as they are if they tell it already."""
    import onnx

    model = onnx.load_model_from_string(variant.payload)
    entries = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith("labkit.")}
    stored = read_metadata(Path(variant.name), entries)
    if stored == {
        "task": variant.task,
        "labels": list(variant.labels),
        "preprocessing": dict(variant.preprocessing),
    }:
        return variant.payload
    write_metadata(model, variant)
    content: bytes = model.SerializeToString()
    return content


def read_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The three entries that `write_metadata` makes, checked like everything else in the file."""
    try:
        stored = {key.removeprefix("labkit."): json.loads(value) for key, value in metadata.items()}
        preprocessing = {
            str(name): read_preprocessing(item) for name, item in stored.get("preprocessing", {}).items()
        }
        return {
            "task": get_task(str(stored.get("task", "classification"))).name,
            "labels": [str(label) for label in stored.get("labels", [])],
            "preprocessing": preprocessing,
        }
    except (ConfigError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ModelFileError(f"{path}: its labkit metadata is malformed ({error}): export it again") from None
