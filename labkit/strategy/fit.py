"""Bring a model and data together: task, classes, and how a stored sample becomes the model's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.data import Dataset
from labkit.errors import ConfigError, DataError
from labkit.variant import Preprocessing, Variant

_CHANNELS = (1, 3, 4)
_OF_BYTES = 1 / 100
"""Scales up to this one make fractions of the numbers 0 to 255."""


def fit_to(
    model: Variant,
    dataset: Dataset,
    scale: float | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Variant:
    """The model with the task, the classes and the preprocessing that it needs for this data.

    A file of weights rarely says how its images were prepared. Where the model does not know, bytes become x / 255,
    other numbers stay what they are, and images [N, H, W, C] turn to the model's layout; `scale`, `mean` and `std`
    (one number, or one per channel) say it better: (x · scale − mean) / std.
    Raises TensorError or DataError where the two cannot belong together, before anything long is started;
    ConfigError for numbers that are no preprocessing.
    """
    dataset.check_classes(model)
    if model.task != dataset.task_name:
        model = dataclasses.replace(model, task=dataset.task_name)
    if not model.labels and dataset.labels:
        model = dataclasses.replace(model, labels=dataset.labels)
    arrays = dataset.split("validation").inputs
    given = scale is not None or bool(mean) or bool(std)
    if given and (len(model.inputs) != 1 or len(arrays) != 1):
        raise ConfigError(
            "scale, mean and std are for models of one input: save a variant with its preprocessing"
        )
    if (given or not model.preprocessing) and len(model.inputs) == 1 and len(arrays) == 1:
        spec, array = model.inputs[0], next(iter(arrays.values()))
        if given or (
            spec.dtype == "float32" and (array.dtype != np.float32 or _channels_last(spec.shape, array))
        ):
            chosen = _preprocessing(spec.shape, array, scale, mean, std)
            model = dataclasses.replace(model, preprocessing={spec.name: chosen})
    _check_images(model, dataset)
    count = model.fixed_batch or 2
    model.feeds(dataset.split("validation").take(np.arange(count) % len(dataset.split("validation"))).inputs)
    _check_targets(model, dataset)
    return model


def assumed(model: Variant, fitted: Variant, dataset: Dataset) -> str:
    """What to know of how `fit_to` prepares the samples, where that is a guess or hardly suits them; else ""."""
    if not fitted.preprocessing:
        return ""
    name, how = next(iter(fitted.preprocessing.items()))
    if not model.preprocessing:
        return (
            f"{model.name} does not say how its input {name!r} was prepared: assuming x · {how.scale:.6g}"
            + (", channels first" if how.layout else "")
            + "; if it was trained otherwise, pass --scale, --mean and --std"
        )
    arrays = list(dataset.split("validation").inputs.values())
    if (
        len(arrays) == 1
        and how.scale <= _OF_BYTES
        and arrays[0].dtype.kind == "f"
        and np.abs(arrays[0]).max() <= 1
    ):
        return (
            f"{model.name} multiplies its images by {how.scale:.6g}, as is right for bytes, and those of "
            f"{dataset.name} are fractions up to 1: if they are as in training but for that, pass --scale 1 with "
            "its --mean and --std"
        )
    return ""


def doubt(accuracy: float | None, dataset: Dataset) -> str:
    """What to look at if the model as it came is hardly better than guessing; "" if it is, or does not classify."""
    chance = 1 / max(2, len(dataset.labels))
    if accuracy is None or accuracy > chance + min(chance / 2, 0.1):
        return ""
    return (
        f"Doubtful: the model as it came is right on {accuracy:.1%} of the samples, guessing would be on {chance:.1%}: "
        "see that its inputs are prepared as in training (--scale, --mean, --std) and the classes are in its order"
    )


def _check_images(model: Variant, dataset: Dataset) -> None:
    """Say in an image's words what TensorSpec would say in axes."""
    arrays = list(dataset.split("validation").inputs.values())
    if len(model.inputs) != 1 or len(arrays) != 1 or arrays[0].ndim != 4 or len(model.inputs[0].shape) != 4:
        return
    given = arrays[0].shape[1:]
    how = model.preprocessing.get(model.inputs[0].name)
    if how and how.layout == "NCHW" and _channels_first(arrays[0]):
        raise DataError(
            f"the images of {dataset.name!r} are {list(arrays[0].shape)}, channels first, and {model.name!r} takes "
            "them as [N, H, W, C]: store them as x.transpose(0, 2, 3, 1)"
        )
    if (how and how.layout == "NCHW") or (given[2] in _CHANNELS and given[0] not in _CHANNELS):
        given = (given[2], *given[:2])
    wanted = model.inputs[0].shape[1:]
    if any(isinstance(want, int) and want != size for want, size in zip(wanted, given, strict=True)):
        raise DataError(
            f"the images of {dataset.name!r} are {_image(given)}, and {model.name!r} takes {_image(wanted)}: "
            "resize or convert them first"
        )


def _image(shape: Sequence[int | str]) -> str:
    channels, height, width = shape
    return f"{width}×{height} pixels with {channels} channel{'' if channels == 1 else 's'}"


def _check_targets(model: Variant, dataset: Dataset) -> None:
    """A regression predicts as many numbers a sample as its targets hold."""
    sizes = model.outputs[0].shape[1:]
    if dataset.task_name != "regression" or not all(isinstance(size, int) for size in sizes):
        return
    wanted, given = math.prod(dataset.split("train").target.shape[1:]), math.prod(map(int, sizes))
    if wanted != given:
        raise DataError(
            f"{model.name!r} gives {given} numbers a sample, the targets of {dataset.name!r} hold {wanted}: if they "
            "are classes, store them as whole numbers"
        )


def _preprocessing(
    shape: Sequence[int | str], array: Any, scale: float | None, mean: Sequence[float], std: Sequence[float]
) -> Preprocessing:
    if max(len(mean), len(std)) > 1 and _channels_first(array):
        raise ConfigError(
            f"mean={list(mean)}, std={list(std)}: one number per channel is for images [N, H, W, C], and these are "
            f"{list(array.shape)}: store them as x.transpose(0, 2, 3, 1), or give one number for all"
        )
    numbers = [*([] if scale is None else [scale]), *mean, *std]
    channels = array.shape[-1] if array.ndim > 1 else 1
    if not np.isfinite(numbers).all() or scale == 0 or min(std, default=1.0) <= 0:
        raise ConfigError(
            f"scale={scale}, mean={list(mean)}, std={list(std)}: give finite numbers, std above 0"
        )
    if {len(mean), len(std)} - {0, 1, channels}:
        raise ConfigError(
            f"mean={list(mean)}, std={list(std)}: give one number, or one for each of {channels} channels"
        )
    if scale is None:
        scale = 1 / 255 if array.dtype.kind in "iu" and array.dtype.itemsize == 1 else 1.0
    layout = "NCHW" if _channels_last(shape, array) else None
    return Preprocessing(scale, tuple(mean) or (0.0,), tuple(std) or (1.0,), layout)


def _channels_first(array: Any) -> bool:
    """Whether these are clearly images [N, C, H, W]."""
    return array.ndim == 4 and array.shape[1] in _CHANNELS and array.shape[3] not in _CHANNELS


def _channels_last(shape: Sequence[int | str], array: Any) -> bool:
    """Whether the array holds images [N, H, W, C] and the model wants [N, C, H, W]; DataError if nothing tells."""
    if len(shape) != 4 or array.ndim != 4:
        return False
    if isinstance(shape[1], str):  # the file does not say: few channels, and as the last axis only
        first, last = (array.shape[axis] in _CHANNELS for axis in (1, 3))
        if first and last:
            raise DataError(
                f"images {list(array.shape[1:])} may have their channels first or last, and the model, which takes "
                f"{list(shape)}, does not say how many it wants: export it with a fixed size of its channel axis"
            )
        return last
    return bool(shape[1] == array.shape[3] and shape[2:] != array.shape[2:])
