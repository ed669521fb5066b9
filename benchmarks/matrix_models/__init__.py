"""The models of the conversion matrix: what each is, and samples that it might meet.

    for each in MODELS:
        model, inputs, outputs = each.make()
        feeds = each.samples(100, seed=0)

None was made for labkit's convenience: there are recurrent layers, attention, transposed and one-dimensional
convolutions, images with the channels last, whole-number inputs, several inputs and outputs. The shipped ones are
trained; the others are untrained and the same each time, with batch norms that do something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import nn

from benchmarks.matrix_models import torch_models as torch_
from labkit.variant import Array, TensorSpec

_SETTLING_SAMPLES = 16


@dataclass(frozen=True)
class MatrixModel:
    """One model: `build` makes it, given samples by which its batch norms may gather statistics.

    `source` is the format that it is born in: torch, keras, mindspore. `ranges` gives, for inputs that are not standard
    normal, the lowest value and the one above the highest. A classifier's first output is its logits [N, classes].
    """

    name: str
    source: str
    build: Callable[[Mapping[str, Array]], Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    task: str = "classification"
    package: str = ""

    def is_available(self) -> bool:
        """Whether the package that builds it is installed: `package`, or the one named like its source."""
        return find_spec(self.package or self.source) is not None

    def make(self) -> tuple[Any, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The live model in inference mode, what goes in and what comes out; imports its framework."""
        return self.build(self.samples(_SETTLING_SAMPLES, seed=0)), self.inputs, self.outputs

    def samples(self, n: int, seed: int) -> dict[str, Array]:
        """Input name → [n, …], in the order in which the model takes them."""
        random = np.random.default_rng(seed)
        return {spec.name: self._draw(spec, n, random) for spec in self.inputs}

    def _draw(self, spec: TensorSpec, n: int, random: np.random.Generator) -> Array:
        shape = (n, *(size if isinstance(size, int) else _FREE_LENGTH for size in spec.shape[1:]))
        if spec.name == "mask":  # 1 for a word, 0 for the padding behind the last one
            lengths = random.integers(1, shape[1] + 1, (n, 1))
            return (np.arange(shape[1]) < lengths).astype(spec.dtype)
        if np.dtype(spec.dtype).kind == "i":
            return random.integers(*self.ranges[spec.name], shape, dtype=spec.dtype)
        each = (n, *(1 for _ in shape[1:]))  # samples differ as wholes too, as images do in brightness
        if spec.name in self.ranges:
            drawn = (random.uniform(*self.ranges[spec.name], size) for size in (shape, each))
            return (sum(drawn) / 2).astype(spec.dtype)
        drawn = (random.standard_normal(size) for size in (shape, each))
        return (sum(drawn) / np.sqrt(2)).astype(spec.dtype)


_FREE_LENGTH = 12
"""Words in a sample whose number of words is free."""


def _in(name: str, *shape: int | str, dtype: str = "float32", layout: str | None = None) -> TensorSpec:
    return TensorSpec(name, dtype, ("batch", *shape), layout)


def _image(*shape: int, layout: str = "NCHW") -> tuple[TensorSpec, ...]:
    return (_in("image", *shape, layout=layout),)


def _logits(classes: int) -> tuple[TensorSpec, ...]:
    return (_in("logits", classes),)


def _words(length: int | str) -> tuple[TensorSpec, ...]:
    return (_in("ids", length, dtype="int64"), _in("mask", length, dtype="int64"))


def _later(module: str, function: str) -> Callable[[Mapping[str, Array]], Any]:
    """A builder whose framework is imported when it is called."""
    return lambda feeds: getattr(import_module(f"{__name__}.{module}"), function)(feeds)


def _torch(
    name: str,
    create: Callable[[], nn.Module],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    **more: Any,
) -> MatrixModel:
    return MatrixModel(name, "torch", torch_.seeded(create), inputs, outputs, **more)


def _shipped(name: str, size: int) -> MatrixModel:
    return MatrixModel(name, "torch", torch_.shipped(name), _image(1, size, size), _logits(10))


def _fresh(name: str, size: int) -> MatrixModel:
    build = torch_.fresh(name, 1, size, size)
    return MatrixModel(name, "torch", build, _image(1, size, size), _logits(10))


_BOTH = (*_image(3, 24, 24), _in("numbers", 6))

_TORCH = (
    _shipped("lenet5@digits", 32),
    _shipped("resnet20@digits", 32),
    _shipped("resnet20@fashion-mnist", 28),
    _shipped("resnet20@fashion-mnist+prune_channels", 28),
    _shipped("resnet20@fashion-mnist+distill", 28),
    _fresh("resnet8", 32),
    _fresh("mobilenet", 28),
    _fresh("vit", 28),
    _torch("lstm", lambda: torch_.Recurrent(nn.LSTM, False), (_in("series", 12, 8),), _logits(5)),
    _torch("gru", lambda: torch_.Recurrent(nn.GRU, True), (_in("series", 12, 8),), _logits(5)),
    _torch("encoder", torch_.Encoder, (_in("series", 16, 12),), _logits(6)),
    _torch("bert", lambda: torch_.Bert(12), _words(12), _logits(3), ranges={"ids": (1, 100)}),
    _torch("word_bag", torch_.WordBag, _words("time"), _logits(3), ranges={"ids": (1, 100)}),
    _torch("unet", torch_.UNet, _image(1, 32, 32), (_in("map", 2, 32, 32),), task="regression"),
    _torch("group_norm", torch_.GroupNormNet, _image(3, 24, 24), _logits(7)),
    _torch("two_towers", torch_.TwoTowers, _BOTH, (*_logits(4), _in("embedding", 16))),
    _torch("channels_last", torch_.ChannelsLast, _image(20, 20, 3, layout="NHWC"), _logits(5)),
    _torch("audio", torch_.Audio, (_in("wave", 1, 512),), _logits(5)),
    _torch("densenet", torch_.DenseNet, _image(3, 24, 24), _logits(6)),
    _torch("mobilenet_v3", torch_.MobileNetV3, _image(3, 32, 32), _logits(8)),
)

_LARGE = _image(96, 96, 3, layout="NHWC")

_KERAS = (
    MatrixModel(
        *("keras_mobilenet_v2", "keras", _later("keras_models", "mobilenet_v2"), _LARGE, _logits(10)),
        ranges={"image": (-1.0, 1.0)},
    ),
    MatrixModel(
        *("keras_efficientnet_b0", "keras", _later("keras_models", "efficientnet_b0"), _LARGE, _logits(10)),
        ranges={"image": (0.0, 255.0)},
    ),
    MatrixModel(
        "keras_lstm",
        "keras",
        _later("keras_models", "text_lstm"),
        (_in("ids", 40, dtype="int32"),),
        _logits(4),
        ranges={"ids": (0, 200)},
    ),
    MatrixModel(
        "keras_two_in_two_out",
        "keras",
        _later("keras_models", "two_in_two_out"),
        (*_image(24, 24, 3, layout="NHWC"), _in("numbers", 6)),
        (*_logits(5), _in("box", 4)),
    ),
)

_MINDSPORE = (
    MatrixModel(
        "mindspore_lenet5",
        "mindspore",
        _later("mindspore_models", "lenet5"),
        _image(1, 32, 32),
        _logits(10),
    ),
)

_TRANSFORMERS = (
    _torch(
        "transformers_bert",
        lambda: torch_.LibraryBert(12),
        _words(12),
        _logits(3),
        ranges={"ids": (1, 100)},
        package="transformers",
    ),
)

MODELS: tuple[MatrixModel, ...] = (*_TORCH, *_KERAS, *_MINDSPORE, *_TRANSFORMERS)
