"""The matrix's Keras models: two of Keras's own, a text classifier, and one with two inputs and two outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from labkit.variant import Array


def mobilenet_v2(feeds: Mapping[str, Array]) -> keras.Model:
    """Image [N, 96, 96, 3] in −1..1 → logits [N, 10]."""
    return _classifier(keras.applications.MobileNetV2, feeds)


def efficientnet_b0(feeds: Mapping[str, Array]) -> keras.Model:
    """Image [N, 96, 96, 3] in 0..255 → logits [N, 10]; it scales the image itself."""
    return _classifier(keras.applications.EfficientNetB0, feeds)


def text_lstm(feeds: Mapping[str, Array]) -> keras.Model:
    """Ids [N, 40] int32 → logits [N, 4]."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((40,), dtype="int32", name="ids")
    x = layers.LSTM(32)(layers.Embedding(200, 16)(ids))
    return keras.Model(ids, layers.Dense(4, name="logits")(x))


def two_in_two_out(feeds: Mapping[str, Array]) -> keras.Model:
    """Image [N, 24, 24, 3] and numbers [N, 6] → logits [N, 5] and box [N, 4]."""
    keras.utils.set_random_seed(0)
    image, numbers = keras.Input((24, 24, 3), name="image"), keras.Input((6,), name="numbers")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(24, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    joined = layers.Concatenate()([layers.Flatten()(x), layers.Dense(8, activation="tanh")(numbers)])
    outputs = [layers.Dense(5, name="logits")(joined), layers.Dense(4, "sigmoid", name="box")(joined)]
    return _settled(keras.Model([image, numbers], outputs), feeds)


def _classifier(application: Any, feeds: Mapping[str, Array]) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((96, 96, 3), name="image")
    body = application(include_top=False, weights=None, pooling="avg", input_tensor=image)
    return _settled(keras.Model(image, layers.Dense(10, name="logits")(body.output)), feeds)


def _settled(model: keras.Model, feeds: Mapping[str, Array]) -> keras.Model:
    """Draw every batch norm's scale and shift, and give it the statistics of these samples."""
    random = np.random.default_rng(0)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.gamma.assign(random.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(random.normal(0, 0.2, norm.beta.shape))
        norm.momentum = 0.0  # keep nothing of the former statistics
    arrays = [feeds[tensor.name] for tensor in model.inputs]
    model(arrays if len(arrays) > 1 else arrays[0], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model
