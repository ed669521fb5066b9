"""A live model of a framework as a variant: a PyTorch module, a Keras model, a MindSpore Cell."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labkit.convert.torch_to_onnx import check_not_training
from labkit.errors import ConfigError, LabkitError, nearest
from labkit.runtimes import get_runtime
from labkit.runtimes.tensorflow import keras_specs
from labkit.task import get_task
from labkit.variant import Array, Preprocessing, TensorSpec, Variant


def as_variant(
    model: Any,
    example: Mapping[str, Array] | Array | None = None,
    name: str = "",
    task: str = "classification",
    preprocessing: Mapping[str, Preprocessing] | Preprocessing | None = None,
) -> Variant:
    """A variant of a live model, on which no technique has run yet.

    example: the inputs of one or more samples, name → [N, …] in the order in which the model takes them, or the one
    array if it takes one; PyTorch and MindSpore models need it, for they do not know their inputs' shapes. The
    first axis is the batch, and free. Keras models know theirs.
    preprocessing: how a stored sample becomes an input, by its name, or of the one input: bytes that the model takes
    as fractions need `Preprocessing(scale=1 / 255)`. Samples go in as they are where there is none.
    Raises ConfigError for anything else, or without an example where one is needed.
    """
    for package, class_name, make in (
        ("torch", "nn.Module", _from_torch),
        ("keras", "Model", _from_keras),
        ("mindspore", "nn.Cell", _from_mindspore),
    ):
        if package in sys.modules and isinstance(model, _attribute(sys.modules[package], class_name)):
            variant = make(model, example, name or type(model).__name__.lower())
            how = preprocessing or {}
            if isinstance(how, Preprocessing):
                how = {variant.inputs[0].name: how}
            known = [spec.name for spec in variant.inputs]
            if other := next((key for key in how if key not in known), None):
                raise ConfigError(
                    f"preprocessing[{other!r}] is of no input of the model; {nearest(other, known)}"
                )
            return dataclasses.replace(variant, task=get_task(task).name, preprocessing=dict(how))
    raise ConfigError(
        f"a {type(model).__name__} is no model that labkit knows: pass a variant, a file's path, a torch.nn.Module, "
        "a keras.Model or a mindspore.nn.Cell"
    )


def _attribute(package: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        package = getattr(package, part)
    return package


def _from_torch(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    feeds = _in_order(check_example(example, name), model.forward)
    variant = Variant(name, "torch", model, _inputs(feeds), ())
    check_not_training(variant)
    return _observed(variant, feeds)


def _from_mindspore(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    feeds = _in_order(check_example(example, name), model.construct)
    return _observed(Variant(name, "mindspore", model, _inputs(feeds), ()), feeds)


def _in_order(feeds: dict[str, Array], function: Any) -> dict[str, Array]:
    """The example in the order of the function's own arguments, where it names them; ConfigError if it names some."""
    arguments = list(inspect.signature(function).parameters)
    known = [name for name in feeds if name in arguments]
    if not known:
        return feeds
    if len(known) < len(feeds):
        other = next(name for name in feeds if name not in arguments)
        raise ConfigError(f"example[{other!r}] is no argument of the model; {nearest(other, arguments)}")
    return {name: feeds[name] for name in arguments if name in feeds}


def _from_keras(model: Any, example: Mapping[str, Array] | Array | None, name: str) -> Variant:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        inputs, outputs = keras_specs(model)
        return Variant(name, "keras", path.read_bytes(), inputs, outputs)


def check_example(example: Mapping[str, Array] | Array | None, name: str) -> dict[str, Array]:
    """The example as input name → [N, …]; ConfigError if it is missing, empty, or its arrays differ in number."""
    if example is None:
        raise ConfigError(
            f"{name} does not know its inputs' shapes: pass example={{'input': array of one or more samples}}"
        )
    feeds = dict(example) if isinstance(example, Mapping) else {"input": example}
    for key, array in feeds.items():
        if not isinstance(array, np.ndarray) or not array.ndim or not len(array):
            raise ConfigError(f"example[{key!r}] must be a numpy array of one or more samples, [N, …]")
    if not feeds or len({len(array) for array in feeds.values()}) > 1:
        raise ConfigError(
            f"example={list(feeds)} must hold at least one array, all of the same number of samples"
        )
    return feeds


def _inputs(feeds: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(key, array.dtype.name, ("batch", *array.shape[1:]), "NCHW" if array.ndim == 4 else None)
        for key, array in feeds.items()
    )


def _observed(variant: Variant, feeds: Mapping[str, Array]) -> Variant:
    """The variant with the outputs that the model gives; an axis that grows with the batch is free."""
    runtime = get_runtime("torch" if variant.format == "torch" else "mindspore")
    found = []
    for times in (1, 2):
        given = {key: np.concatenate([array] * times) for key, array in feeds.items()}
        try:
            with runtime.load(variant) as session:
                found.append(session.observe(given))  # type: ignore[attr-defined]
        except LabkitError:
            raise
        except Exception as error:  # whatever the model's own code raises
            shapes = ", ".join(f"{key} {array.dtype} {list(array.shape)}" for key, array in given.items())
            raise ConfigError(
                f"{variant.name} cannot compute on the example, {shapes}: {str(error)[:250]}"
            ) from None
    once, more = found
    if [array.ndim for array in once] != [array.ndim for array in more]:
        raise ConfigError(f"{variant.name} gives another rank for one sample than for two: pass two samples")
    outputs = tuple(
        TensorSpec(
            "output" if len(once) == 1 else f"output_{index}",
            a.dtype.name,
            tuple("batch" if x != y else x for x, y in zip(a.shape, b.shape, strict=True)),
        )
        for index, (a, b) in enumerate(zip(once, more, strict=True))
    )
    return dataclasses.replace(variant, outputs=outputs)
