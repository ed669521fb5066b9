"""What goes into a model and comes out: each tensor's name, dtype and shape, and how a stored sample becomes one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.errors import ConfigError, TensorError

Array = NDArray[Any]
_MOST_DIMENSIONS, _LARGEST_BYTES = 8, 2**29  # of two samples: several times what the largest real images take
_LARGEST, _SMALLEST_STD = 3e38, 1e-30  # beyond these a float32 is infinite, or dividing by it is


_FIXED_BATCH = (
    ": the file takes batches of exactly {0}: export it with a free batch, or set batch_size={0} where there is such a "
    "field"
)


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output: dtype is numpy's name, a str in `shape` is a dimension that may vary.

    TensorSpec("image", "float32", ("batch", 1, 32, 32), "NCHW")
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str | None = None

    def __str__(self) -> str:
        """Such as "image [batch, 1, 32, 32]"."""
        return f"{self.name} [{', '.join(map(str, self.shape))}]"

    def check(self, array: Array, sizes: dict[str, int]) -> None:
        """Raise TensorError unless `array` fits; `sizes` collects what each named dimension was so far."""
        if not isinstance(array, np.ndarray):
            raise TensorError(f"input {self.name!r} is a {type(array).__name__}; pass a numpy array")
        if array.dtype != np.dtype(self.dtype):
            advice = f"use .astype({self.dtype!r}) if that loses nothing"
            if array.dtype == np.uint8 and self.dtype == "float32":
                advice = (
                    "say how its images are prepared, as in labkit.as_variant(model, example, "
                    "preprocessing=labkit.Preprocessing(scale=1 / 255))"
                )
            raise TensorError(
                f"input {self.name!r} has dtype {array.dtype}, the model takes {self.dtype}: {advice}"
            )
        if array.ndim != len(self.shape):
            raise TensorError(
                f"input {self.name!r} has {array.ndim} dimensions {array.shape}, the model takes {self.shape}"
            )
        for axis, (size, expected) in enumerate(zip(array.shape, self.shape, strict=True)):
            if isinstance(expected, str):
                expected = sizes.setdefault(expected, size)
            if size != expected:
                alone = "" if axis or isinstance(self.shape[0], str) else _FIXED_BATCH.format(expected)
                raise TensorError(
                    f"input {self.name!r} has size {size} on axis {axis}, expected {expected} of {self.shape}{alone}"
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


def read_specs(items: Any, what: str) -> tuple[TensorSpec, ...]:
    """Specs from plain data, at least one; ValueError names the place, as in inputs[0], and the fault."""
    specs = tuple(_spec(item, f"{what}[{index}]") for index, item in enumerate(items))
    if not specs:
        raise ValueError(f"{what} is empty")
    return specs


def _spec(item: Mapping[str, Any], what: str) -> TensorSpec:
    shape = tuple(item["shape"])
    if not isinstance(item["name"], str) or isinstance(item["shape"], str):
        raise ValueError(f"{what} has no name or no shape")
    if not isinstance(item["layout"], str | None):
        raise ValueError(f"{what}.layout={item['layout']!r} must be a text or null")
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{what} has {len(shape)} dimensions; allowed: at most {_MOST_DIMENSIONS}")
    if not all(isinstance(size, str) or type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{what}.shape={item['shape']!r} must hold names or sizes above 0")
    dtype = np.dtype(item["dtype"]) if isinstance(item["dtype"], str) else None
    if dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8 or not dtype.isnative:
        raise ValueError(
            f"{what}.dtype={item['dtype']!r} must be a bool, an int or a float of at most 64 bits"
        )
    if dtype.itemsize * math.prod(2 if isinstance(size, str) else size for size in shape) > _LARGEST_BYTES:
        raise ValueError(
            f"{what}.shape={list(shape)} is too large: two samples exceed {_LARGEST_BYTES} bytes"
        )
    return TensorSpec(item["name"], str(dtype), shape, item["layout"])


def read_preprocessing(item: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing from plain data; ConfigError names the field, other errors mean that it has another form."""
    return Preprocessing(item["scale"], tuple(item["mean"]), tuple(item["std"]), item["layout"])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
