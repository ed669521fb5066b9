"""`load_file`: a variant from a model's file of any origin, after it was opened and run once at a safe distance.

Two things happen before we trust it. `check` refuses what can be seen without running anything: pickles, code,
entities. Those very bytes then go to a child process, which opens and runs them under
limits of memory and time (`sandbox.py`). Only its short answer comes back: the names, types and shapes of what
goes in and out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError, UnavailableError, nearest
from labkit.formats import keras_file, onnx_file, openvino_file, pt2_file, saved_model, tflite_file
from labkit.formats.sandbox import ask
from labkit.runtimes import RUNTIMES
from labkit.task import get_task
from labkit.variant import (
    FORMATS,
    Preprocessing,
    Step,
    TensorSpec,
    Variant,
    check_description,
    framed,
    get_format,
)


class Reader(Protocol):
    """A module that reads one format."""

    CHILD: str

    def read(self, path: Path) -> Any:
        """The model: bytes, or a folder's files."""

    def check(self, model: Any, what: str) -> None:
        """Raise ModelFileError for what must not even be opened."""

    def budget(self, size: int) -> tuple[int, float]:
        """(bytes of memory, seconds of processor time) for a file of `size` bytes."""


READERS: Mapping[str, Reader] = {
    "onnx": onnx_file,
    "pt2": pt2_file,
    "openvino": openvino_file,
    "keras": keras_file,
    "tensorflow": saved_model,
    "tflite": tflite_file,
}

_REFUSED = {
    ".pt": "holds a pickle, which can run code when it is read",
    ".pth": "holds a pickle, which can run code when it is read",
    ".pkl": "is a pickle, which can run code when it is read",
    ".ckpt": "holds parameters without the network that uses them",
    ".mindir": "is MindSpore's own file, which its exporter does not take",
    ".h5": "is Keras's old format, which keeps code as byte code",
    ".hdf5": "is Keras's old format, which keeps code as byte code",
    ".safetensors": "holds parameters without the network that uses them",
}
_INSTEAD = {
    ".pt": "load it where its class is (torch.load, weights_only=True) and pass the module to labkit.convert",
    ".ckpt": "load it into its Cell and pass that to labkit.convert",
    ".mindir": "pass the Cell that it was made from to labkit.convert",
    ".h5": "open it where it was made and save it again with model.save('model.keras')",
    ".safetensors": "load it into its network and pass that to labkit.convert",
}
_INSTEAD |= {".pth": _INSTEAD[".pt"], ".pkl": _INSTEAD[".pt"], ".hdf5": _INSTEAD[".h5"]}


def format_of(path: str | Path) -> str:
    """The format of a model's file by its name, or of a folder by what is in it.

    Raises ModelFileError for kinds that are never opened, saying why and what to do; ConfigError for others.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _REFUSED:
        raise ModelFileError(f"{path} {_REFUSED[suffix]}: {_INSTEAD[suffix]}")
    for each in FORMATS:
        if each.name in READERS and (
            (each.suffix and suffix == each.suffix) or (each.main and os.path.isfile(path / each.main))
        ):
            return each.name
    known = [each.suffix for each in FORMATS if each.suffix and each.name in READERS]
    raise ConfigError(
        f"{path} is no model that labkit knows by its name; {nearest(suffix, [*known, 'a SavedModel folder'])}"
    )


@door
def load_file(
    path: str | Path,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Preprocessing] | None = None,
    patience: float = 1.0,
) -> Variant:
    """A variant from a model's file (.onnx, .pt2, .keras, .tflite, OpenVINO's .xml) or a SavedModel's folder.

    What is not given comes from an ONNX file's own metadata, else: classification, no labels, no preprocessing.
    Dimensions without a name are called "batch" (the first) or INPUT_AXIS; a batch that the file fixes stays
    fixed. `patience` multiplies the memory and the time that the check allows, for a file that you trust.
    Raises ModelFileError if the file is damaged, too new, hides code or a pickle, keeps data outside its folder, or
    needs too much; UnavailableError if the package that opens this format is not installed.
    """
    path = Path(path)
    if not 0 < patience < math.inf:
        raise ConfigError(f"patience={patience!r} must be a number above 0")
    format_ = format_of(path)
    model = READERS[format_].read(path)
    answer = inspect(path, format_, model, patience)
    stored = onnx_file.read_metadata(path, answer["metadata"])
    variant = Variant(
        name=path.stem if path.stem != "model" or format_ == "onnx" else path.parent.name or path.stem,
        format=format_,
        model=model,
        inputs=_specs(answer["inputs"]),
        outputs=_specs(answer["outputs"]),
        task=get_task(task or stored["task"]).name,
        labels=tuple(stored["labels"] if labels is None else labels),
        preprocessing=dict(stored["preprocessing"] if preprocessing is None else preprocessing),
        lineage=(Step(f"load_{format_}", {"file": path.name}, (), origin="file"),),
    )
    check_description(variant, str(path))
    return variant


@door
def load_onnx(
    path: str | Path,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Preprocessing] | None = None,
    patience: float = 1.0,
) -> Variant:
    """`load_file` for an `.onnx` file."""
    if Path(path).suffix.lower() != ".onnx":
        raise ModelFileError(f"{path} does not end in .onnx: labkit.load_model reads the other formats")
    return load_file(path, task, labels, preprocessing, patience)


def inspect(path: Path, format_: str, model: Any, patience: float = 1.0) -> dict[str, Any]:
    """What the format's child found out about `model`, or ModelFileError if it did not come back with an answer."""
    reader = READERS[format_]
    reader.check(model, str(path))
    runtime = next(runtime for runtime in RUNTIMES if format_ in runtime.formats)
    available = runtime.is_available()
    if not available.ok:
        title = get_format(format_).title
        raise UnavailableError(
            f"{path}: opening {title} needs {runtime.name}: {available.reason}; {available.install}"
        )
    payload = framed(model)
    memory_bytes, cpu_seconds = reader.budget(len(payload))
    return ask(reader.CHILD, path, payload, int(patience * memory_bytes), patience * cpu_seconds)


def _specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = []
    for item in items:
        shape = tuple(
            size if size is not None else "batch" if axis == 0 else f"{item['name']}_{axis}"
            for axis, size in enumerate(item["shape"])
        )
        layout = "NCHW" if len(shape) == 4 and item["dtype"].startswith("float") else None
        specs.append(TensorSpec(item["name"], item["dtype"], shape, item.get("layout", layout)))
    return tuple(specs)
