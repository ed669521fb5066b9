"""A live model of a framework as a variant: a PyTorch module, a Keras model, a MindSpore Cell."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import ConfigError
from labkit.runtimes import RunOptions, get_runtime
from labkit.runtimes.tensorflow import keras_specs
from labkit.variant import Array, TensorSpec, Variant


def as_variant(model: Any, example: Mapping[str, Array] | Array | None = None, name: str = "") -> Variant:
    """A variant of a live model, on which no technique has run yet.

    example: the inputs of one or more samples, name → [N, …] in the order in which the model takes them, or the one
    array if it takes one; PyTorch and MindSpore models need it, for they do not know their inputs' shapes. The
    first axis is the batch, and free. Keras models know theirs.
    Raises ConfigError for anything else, or without an example where one is needed.
    """
    for package, class_name, make in (
        ("torch", "nn.Module", _from_torch),
        ("keras", "Model", _from_keras),
        ("mindspore", "nn.Cell", _from_mindspore),
    ):
        if package in sys.modules and isinstance(model, _attribute(sys.modules[package], class_name)):
            return make(model, example, name or type(model).__name__.lower())
    raise ConfigError(
        f"a {type(model).__name__} is no model that labkit knows: pass a variant, a file's path, a torch.nn.Module, "
        "a keras.Model or a mindspore.nn.Cell"
    )


def _attribute(package: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        package = getattr(package, part)
    return package


def _from_torch(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    return _observed(Variant(name, "torch", model, _inputs(example, name), ()), example)


def _from_mindspore(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    return _observed(Variant(name, "mindspore", model, _inputs(example, name), ()), example)


def _from_keras(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        inputs, outputs = keras_specs(model)
        return Variant(name, "keras", path.read_bytes(), inputs, outputs)


def _feeds(example: Mapping[str, Array] | Array | None, name: str) -> dict[str, Array]:
    if example is None:
        raise ConfigError(
            f"{name} does not know its inputs' shapes: pass example={{'input': array of one or more samples}}"
        )
    feeds = dict(example) if isinstance(example, Mapping) else {"input": example}
    for key, array in feeds.items():
        if not isinstance(array, np.ndarray) or not array.ndim or not len(array):
            raise ConfigError(f"example[{key!r}] must be a numpy array of one or more samples, [N, …]")
    return feeds


def _inputs(example: Mapping[str, Array] | Array | None, name: str) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(key, array.dtype.name, ("batch", *array.shape[1:]), "NCHW" if array.ndim == 4 else None)
        for key, array in _feeds(example, name).items()
    )


def _observed(variant: Variant, example: Mapping[str, Array] | Array | None) -> Variant:
    """The variant with the outputs that the model gives; an axis that grows with the batch is free."""
    feeds = _feeds(example, variant.name)
    runtime = get_runtime("torch" if variant.format == "torch" else "mindspore")
    twice = {key: np.concatenate([array, array]) for key, array in feeds.items()}
    found = []
    for given in (feeds, twice):
        with runtime.load(variant, RunOptions()) as session:
            found.append(session.observe(given))  # type: ignore[attr-defined]
    outputs = tuple(
        TensorSpec(
            "output" if len(found[0]) == 1 else f"output_{index}",
            once.dtype.name,
            tuple("batch" if a != b else a for a, b in zip(once.shape, more.shape, strict=True)),
        )
        for index, (once, more) in enumerate(zip(*found, strict=True))
    )
    return dataclasses.replace(variant, outputs=outputs)
