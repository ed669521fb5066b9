"""A Variant: one model in one format, what goes in and out, and how it came to be.

Variants are frozen. A technique makes a *new* one and leaves its input as it was, so that before and after
can be compared. Two formats live here: `torch` (an architecture's config + its parameters) and `onnx` (the
file's bytes). Saving writes JSON and safetensors or ONNX, never pickle, and is atomic: the model's file is
named after its content, and `variant.json`, which names it, is renamed into place last.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError, TensorError
from labkit.files import check_safetensors_header, check_text, read_json, read_regular, write_atomically

Array = NDArray[Any]
SCHEMA_VERSION = 1
LARGEST_BYTES = 2**31 - 1
"""Of a model's file: protobuf's own limit."""
_LARGEST, _SMALLEST_STD = 3e38, 1e-30  # beyond these a float32 is infinite, or dividing by it is
_SUFFIX = {"torch": ".safetensors", "onnx": ".onnx"}


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output: dtype is numpy's name, a str in `shape` is a dimension that may vary.

    TensorSpec("image", "float32", ("batch", 1, 32, 32), "NCHW")
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str | None = None

    def check(self, array: Array, sizes: dict[str, int]) -> None:
        """Raise TensorError unless `array` fits; `sizes` collects what each named dimension was so far."""
        if not isinstance(array, np.ndarray):
            raise TensorError(f"input {self.name!r} is a {type(array).__name__}; pass a numpy array")
        if array.dtype != np.dtype(self.dtype):
            raise TensorError(
                f"input {self.name!r} has dtype {array.dtype}, the model takes {self.dtype}: "
                f"use .astype({self.dtype!r}) if that loses nothing"
            )
        if array.ndim != len(self.shape):
            raise TensorError(
                f"input {self.name!r} has {array.ndim} dimensions {array.shape}, the model takes {self.shape}"
            )
        for axis, (size, expected) in enumerate(zip(array.shape, self.shape, strict=True)):
            if isinstance(expected, str):
                expected = sizes.setdefault(expected, size)
            if size != expected:
                raise TensorError(
                    f"input {self.name!r} has size {size} on axis {axis}, expected {expected} of {self.shape}"
                )
            if size == 0:
                raise TensorError(f"input {self.name!r} is empty on axis {axis}: pass at least one sample")

    def check_finite(self, array: Array) -> None:
        """Raise TensorError if a floating array holds NaN or infinity."""
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise TensorError(
                f"{self.name!r} holds {bad} values that are NaN or infinite: clean the data first"
            )


@dataclass(frozen=True)
class Preprocessing:
    """How a stored sample becomes the model's input, as data: ((x · scale) − mean) / std, then the layout.

    x: images [N, H, W, C] (any dtype) → float32 [N, C, H, W] when layout is "NCHW"; other arrays [N, …] keep
    their order with layout None. mean and std hold one number per channel (the last axis of x).
    Raises ConfigError for what is no finite number, a std that is not above 0, or another layout.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std)):
            least = _SMALLEST_STD if name == "std" else -_LARGEST
            if not values or not all(_is_number(value) and least <= value <= _LARGEST for value in values):
                wanted = "above 0" if name == "std" else "finite"
                raise ConfigError(
                    f"preprocessing.{name}={getattr(self, name)!r} must hold numbers, each {wanted}"
                )
        if self.layout not in (None, "NCHW"):
            raise ConfigError(f"preprocessing.layout={self.layout!r} is unknown; allowed: 'NCHW' or none")

    def __call__(self, x: Array) -> Array:
        """Return float32 [N, C, H, W] for layout "NCHW", else float32 of x's shape."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        y: Array = (x.astype(np.float32) * np.float32(self.scale) - mean) / std
        if self.layout == "NCHW" and y.ndim == 4:
            y = y.transpose(0, 3, 1, 2)
        return y.copy(
            order="C"
        )  # not ascontiguousarray: that leaves a grey image's strides looking like NHWC


@dataclass(frozen=True)
class Step:
    """One entry of a lineage: which technique, with which config, from which parents (digests).

    `origin` is "here" if it ran on this machine, "zoo" if it came with labkit, "file" if it was brought along.
    """

    technique: str
    config: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    origin: str = "here"


@dataclass(frozen=True, eq=False)
class Variant:
    """A model in one format (`model`: a torch Module, or ONNX bytes) and everything needed to run it.

    `preprocessing` maps an input's name to its Preprocessing; an input that is not named there is fed as it is.
    """

    name: str
    format: str
    model: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: str = "classification"
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    lineage: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        check_text(ModelFileError, self.name, *self.labels)

    @functools.cached_property
    def payload(self) -> bytes:
        """The bytes that would be shipped for the model itself: the safetensors or the ONNX file."""
        if self.format == "onnx":
            return bytes(self.model)
        return _torch_bytes(self.model)

    @property
    def size_bytes(self) -> int:
        """Length of `payload`."""
        return len(self.payload)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of format, config and payload as they were when first asked for."""
        return self.fingerprint()

    def fingerprint(self) -> str:
        """The digest computed afresh from the model as it is now: this is how tampering is noticed."""
        body = bytes(self.model) if self.format == "onnx" else _torch_bytes(self.model)
        config = json.dumps(getattr(self.model, "config", None), sort_keys=True)
        return hashlib.sha256(f"{self.format}\n{config}\n".encode() + body).hexdigest()

    @functools.cached_property
    def quantized(self) -> bool:
        """Whether the graph turns activations into integers; a PyTorch variant never does."""
        if self.format != "onnx":
            return False
        import onnx

        nodes = onnx.load_model_from_string(self.model).graph.node
        return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in nodes)

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the model insists on (some files are exported so), None if it takes any."""
        sizes = [spec.shape[0] for spec in self.inputs if spec.shape]
        return next((size for size in sizes if isinstance(size, int)), None)

    @door
    def feeds(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Stored samples (name → [N, …]) to model inputs, preprocessed and checked.

        With a single input and a single stored array the names may differ; otherwise they must match.
        Raises TensorError for a missing name or an array that does not fit.
        """
        given = dict(batch)
        if len(self.inputs) == 1 and len(given) == 1:
            given = {self.inputs[0].name: next(iter(given.values()))}
        names = [spec.name for spec in self.inputs]
        missing = [name for name in names if name not in given]
        if missing:
            raise TensorError(f"input {missing[0]!r} is missing; the model takes {names}, got {list(given)}")
        feeds = {
            name: self.preprocessing[name](given[name]) if name in self.preprocessing else given[name]
            for name in names
        }
        self.check_feeds(feeds)
        return feeds

    def check_feeds(self, feeds: Mapping[str, Array]) -> None:
        """Raise TensorError unless `feeds` has exactly the model's inputs, each fitting its TensorSpec."""
        names = [spec.name for spec in self.inputs]
        given = list(feeds) if isinstance(feeds, Mapping) else type(feeds).__name__
        if not isinstance(feeds, Mapping) or set(feeds) != set(names):
            raise TensorError(f"the model takes a mapping of the inputs {names}, got {given}")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            spec.check(feeds[spec.name], sizes)
            spec.check_finite(feeds[spec.name])

    def derive(self, name: str, step: Step, **changes: Any) -> Variant:
        """A new variant with `changes`, its lineage longer by `step`."""
        return dataclasses.replace(self, name=name, lineage=(*self.lineage, step), **changes)

    @door
    def save(self, folder: str | Path) -> Path:
        """Write `variant.json` and the model's file into `folder`; an interrupted save leaves the old one whole."""
        folder = Path(folder)
        if self.format == "torch" and not hasattr(self.model, "config"):
            raise ModelFileError(
                f"{type(self.model).__name__} is not one of labkit's architectures, so it cannot be rebuilt "
                "without pickle: convert it to ONNX first (labkit.ExportOnnx()) and save that"
            )
        checksum = hashlib.sha256(self.payload).hexdigest()
        file_name = f"model-{checksum[:12]}{_SUFFIX[self.format]}"
        former = _former_file(folder)
        write_atomically(folder / file_name, self.payload)
        document = {
            "schema_version": SCHEMA_VERSION,
            **{key: getattr(self, key) for key in ("name", "format", "task", "labels")},
            "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
            "outputs": [dataclasses.asdict(spec) for spec in self.outputs],
            "preprocessing": {key: dataclasses.asdict(value) for key, value in self.preprocessing.items()},
            "lineage": [dataclasses.asdict(step) for step in self.lineage],
            "config": getattr(self.model, "config", None),
            "file": file_name,
            "sha256": checksum,
        }
        write_atomically(folder / "variant.json", json.dumps(document, indent=1).encode())
        if former not in (None, file_name):
            (folder / str(former)).unlink(missing_ok=True)
        return folder

    @classmethod
    @door
    def load(cls, folder: str | Path) -> Variant:
        """Read what `save` wrote. Raises ModelFileError if anything is missing, changed or malformed."""
        folder = Path(folder)
        document = read_json(folder / "variant.json", ModelFileError)
        try:
            if document["schema_version"] != SCHEMA_VERSION:
                raise ModelFileError(
                    f"{folder} was written by schema version {document['schema_version']}; this labkit reads "
                    f"{SCHEMA_VERSION}"
                )
            file_name, format_ = document["file"], document["format"]
            if Path(file_name).name != file_name or format_ not in _SUFFIX:
                raise ModelFileError(
                    f"{folder}/variant.json names {file_name!r} of format {format_!r}: refused"
                )
            payload = _read_payload(folder / file_name, document["sha256"])
            model = payload if format_ == "onnx" else _torch_model(document["config"], payload)
            return cls(
                name=str(document["name"]),
                format=format_,
                model=model,
                inputs=_specs(document["inputs"], "inputs"),
                outputs=_specs(document["outputs"], "outputs"),
                task=str(document["task"]),
                labels=tuple(map(str, document["labels"])),
                preprocessing={
                    key: read_preprocessing(value) for key, value in document["preprocessing"].items()
                },
                lineage=tuple(
                    _step(item, f"lineage[{index}]") for index, item in enumerate(document["lineage"])
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ConfigError) as error:
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise ModelFileError(
                f"{folder}/variant.json is malformed ({reason}): save the variant again"
            ) from None


def _former_file(folder: Path) -> str | None:
    """The model's file of an older save in `folder`; never a file that `save` has not written."""
    try:
        name = read_json(folder / "variant.json", ModelFileError).get("file")
    except ModelFileError:
        return None
    return (
        name
        if isinstance(name, str) and re.fullmatch(r"model-[0-9a-f]{12}\.(safetensors|onnx)", name)
        else None
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _specs(items: Any, what: str) -> tuple[TensorSpec, ...]:
    specs = tuple(_spec(item, f"{what}[{index}]") for index, item in enumerate(items))
    if not specs:
        raise ValueError(f"{what} is empty")
    return specs


def _spec(item: Mapping[str, Any], what: str) -> TensorSpec:
    shape = tuple(item["shape"])
    if not isinstance(item["name"], str) or isinstance(item["shape"], str):
        raise ValueError(f"{what} has no name or no shape")
    if not all(isinstance(size, str) or type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{what}.shape={item['shape']!r} must hold names or sizes above 0")
    return TensorSpec(item["name"], str(np.dtype(item["dtype"])), shape, item["layout"])


def read_preprocessing(item: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing from plain data; ConfigError names the field, other errors mean that it has another form."""
    return Preprocessing(item["scale"], tuple(item["mean"]), tuple(item["std"]), item["layout"])


def _step(item: Mapping[str, Any], what: str) -> Step:
    technique, config, parents, origin = (item[name] for name in ("technique", "config", "parents", "origin"))
    if not all(isinstance(text, str) for text in (technique, origin, *parents)):
        raise ValueError(f"{what}: technique, parents and origin must be texts")
    if not isinstance(config, dict) or not isinstance(parents, list):
        raise ValueError(f"{what}: config must be an object, parents a list")
    try:
        json.dumps(config, allow_nan=False)
    except ValueError:
        raise ValueError(f"{what}.config holds NaN or infinity") from None
    return Step(technique, config, tuple(parents), origin)


def _read_payload(path: Path, expected: str) -> bytes:
    try:
        if path.is_symlink():
            raise ModelFileError(f"{path} is a link: refused, because it may lead out of the folder")
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from None
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, "a model's file")
    if hashlib.sha256(payload).hexdigest() != expected:
        raise ModelFileError(
            f"{path} is not the file that was saved (its checksum differs): restore or save again"
        )
    return payload


def _torch_bytes(model: Any) -> bytes:
    import torch
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    tensors = model.state_dict().items()
    return save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors})


def _torch_model(config: Any, payload: bytes) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from labkit.models import build

    if not isinstance(config, dict):
        raise ModelFileError("variant.json has no config for its architecture")
    check_safetensors_header(payload)
    try:
        tensors = load(payload)
        with torch.device("meta"):  # costs nothing, whatever widths the config claims
            expected = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
        if expected != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ModelFileError("the parameters do not fit the architecture: save the variant again")
        model = build(config)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"the parameters do not fit the architecture: {first}") from None
    return model.eval()
