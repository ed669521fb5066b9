"""ONNX files: what labkit writes into them beside the graph, and how it reads one that somebody else wrote.

A file from elsewhere is not opened before it has proved harmless. Its bytes are read once, and those very
bytes go to a child process (`onnx_child.py`), which parses, checks, opens and runs them under limits of
memory and time; only its short answer comes back. A file that lies, loops or explodes costs us a child.

Three entries of ONNX's `metadata_props` let a single file carry what a variant knows: `labkit.task`,
`labkit.labels` and `labkit.preprocessing`, each in JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError
from labkit.files import read_regular
from labkit.formats.sandbox import ask
from labkit.task import get_task
from labkit.variant import LARGEST_BYTES, Preprocessing, Step, TensorSpec, Variant, read_preprocessing

if TYPE_CHECKING:
    import onnx


def write_metadata(model: onnx.ModelProto, variant: Variant) -> None:
    """Store task, labels and preprocessing in `model`: `load_onnx` then restores them from the file alone."""
    import onnx

    preprocessing = {name: dataclasses.asdict(value) for name, value in variant.preprocessing.items()}
    known = {"task": variant.task, "labels": list(variant.labels), "preprocessing": preprocessing}
    kept = {entry.key: entry.value for entry in model.metadata_props}
    entries = {f"labkit.{key}": json.dumps(value, sort_keys=True) for key, value in known.items()}
    onnx.helper.set_model_props(model, {**kept, **entries})


@door
def load_onnx(
    path: str | Path,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Preprocessing] | None = None,
    patience: float = 1.0,
) -> Variant:
    """A variant from an `.onnx` file of any origin, after it was opened and run once at a safe distance.

    What is not given comes from the file's own metadata, else: classification, no labels, no preprocessing.
    Dimensions without a name are called "batch" (the first) or INPUT_AXIS; a batch that the file fixes stays
    fixed. `patience` multiplies the memory and the time that the check allows, for a file that you trust.
    Raises ModelFileError if the file is damaged, too new, keeps data outside itself, or needs too much.
    """
    path = Path(path)
    if not 0 < patience < math.inf:
        raise ConfigError(f"patience={patience!r} must be a number above 0")
    payload = _read(path)
    answer = inspect(path, payload, patience)
    stored = _stored(path, answer["metadata"])
    inputs, outputs = _specs(answer["inputs"]), _specs(answer["outputs"])
    variant = Variant(
        name=path.stem,
        format="onnx",
        model=payload,
        inputs=inputs,
        outputs=outputs,
        task=get_task(task or stored["task"]).name,
        labels=tuple(stored["labels"] if labels is None else labels),
        preprocessing=dict(stored["preprocessing"] if preprocessing is None else preprocessing),
        lineage=(Step("load_onnx", {"file": path.name}, (), origin="file"),),
    )
    _check_given(path, variant)
    return variant


def _check_given(path: Path, variant: Variant) -> None:
    """Raise ModelFileError if labels or preprocessing belong to another model."""
    unknown = set(variant.preprocessing) - {spec.name for spec in variant.inputs}
    if unknown:
        names = ", ".join(repr(spec.name) for spec in variant.inputs)
        raise ModelFileError(f"{path}: preprocessing is for {min(unknown)!r}, the model takes {names}")
    classes = next(reversed(variant.outputs[0].shape), None)
    if variant.labels and isinstance(classes, int) and classes != len(variant.labels):
        raise ModelFileError(f"{path}: {len(variant.labels)} labels for a model with {classes} outputs")


def _read(path: Path) -> bytes:
    if not os.path.exists(path):
        raise ModelFileError(f"{path} does not exist")
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, "an ONNX file")
    if not payload:
        raise ModelFileError(f"{path} is empty")
    return payload


def inspect(path: Path, payload: bytes, patience: float = 1.0) -> dict[str, Any]:
    """What the child found out, or ModelFileError if it did not come back with an answer."""
    cpu_seconds = patience * (0.8 + len(payload) / 20e6)
    memory_bytes = int(patience * (200e6 + 6 * len(payload)))
    return ask("labkit.formats.onnx_child", path, payload, memory_bytes, cpu_seconds)


def _specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = []
    for item in items:
        shape = tuple(
            size if size is not None else "batch" if axis == 0 else f"{item['name']}_{axis}"
            for axis, size in enumerate(item["shape"])
        )
        layout = "NCHW" if len(shape) == 4 and item["dtype"].startswith("float") else None
        specs.append(TensorSpec(item["name"], item["dtype"], shape, layout))
    return tuple(specs)


def _stored(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
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
