"""Models that only Keras or MindSpore can make, for the contracts that hold in every format."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.convert import as_variant
from labkit.data import Dataset
from labkit.variant import Preprocessing, Variant


def keras_model() -> Any:
    """A small classifier of digits with everything that conversions stumble over: NHWC, padding, batch norm."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((32, 32, 1), name="image"),
            layers.Normalization(
                mean=[0.1], variance=[1.5], name="scale"
            ),  # constants from outside the graph
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, name="logits"),
        ]
    )
    norm = model.get_layer("norm")
    random = np.random.default_rng(0)
    norm.set_weights([1 + random.random(8), random.random(8), random.random(8), 1 + random.random(8)])
    return model


def mindspore_model() -> Any:
    """LeNet-5 as MindSpore's tutorials write it, the one of the conversion matrix."""
    from benchmarks.matrix_models.mindspore_models import lenet5

    return lenet5({})


def _described(variant: Variant, dataset: Dataset, layout: str | None) -> tuple[Variant, Dataset]:
    import dataclasses

    prepared = {variant.inputs[0].name: Preprocessing(1 / 255, (0.5,), (0.5,), layout)}
    return dataclasses.replace(variant, labels=dataset.labels, preprocessing=prepared), dataset


def keras_case(dataset: Dataset) -> tuple[Variant, Dataset]:
    """The Keras model with digits."""
    return _described(as_variant(keras_model()), dataset, None)


def mindspore_case(dataset: Dataset) -> tuple[Variant, Dataset]:
    """The MindSpore Cell with digits."""
    import mindspore  # noqa: F401 - as_variant knows only what has been imported

    example = {"image": np.zeros((2, 1, 32, 32), np.float32)}
    return _described(as_variant(mindspore_model(), example), dataset, "NCHW")
