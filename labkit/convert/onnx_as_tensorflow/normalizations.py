"""Normalisations: subtract a mean, divide by a spread, then scale and shift; they differ in what is averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import Node, Operator, Value, is_known, rank, sizes, tensor, tf


def _batch_norm(node: Node, x: Any, gamma: Value, beta: Value, mean: Value, variance: Value) -> Any:
    """One multiplication and one addition per channel, with the means of the training data."""
    if node.get("training_mode", 0):
        raise node.refuse("it is in training mode: export the model in evaluation mode")
    if all(map(is_known, (gamma, beta, mean, variance))):
        factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.get("epsilon", 1e-5))
        dtype = tensor(x).dtype.as_numpy_dtype
        return x * factor.astype(dtype) + (beta - mean * factor).astype(dtype)
    factor = gamma / tf.sqrt(variance + node.get("epsilon", 1e-5))
    return x * factor + (beta - mean * factor)


def _normalized(x: Any, axes: list[int], epsilon: float) -> Any:
    """X with mean 0 and variance 1 over `axes`."""
    return _moments(x, axes, epsilon)[0]


def _moments(x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any, Any]:
    """The normalised x, its mean, and one over its standard deviation, over `axes`."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    centred = x - mean
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def _instance_norm(node: Node, x: Any, gamma: Value, beta: Value) -> Any:
    """Over the spatial axes of x [N, spatial…, C]: each channel of each sample by itself."""
    return _normalized(x, list(range(1, rank(x) - 1)), node.get("epsilon", 1e-5)) * gamma + beta


def _group_norm(node: Node, x: Any, gamma: Value, beta: Value) -> Any:
    """Over the spatial axes and the channels of a group: [N, …, C] is seen as [N, …, groups, C / groups]."""
    groups, channels, full = node.get("num_groups"), x.shape[-1], rank(x)
    present = sizes(x)
    batch = present[0] if None in x.shape[1:] else -1
    seen = tf.reshape(x, [batch, *present[1:-1], groups, channels // groups])
    y = _normalized(seen, [*range(1, full - 1), full], node.get("epsilon", 1e-5))
    if node.opset < 21:  # one scale for each group
        return tf.reshape(y * gamma[:, None] + beta[:, None], [batch, *present[1:]])
    return tf.reshape(y, [batch, *present[1:]]) * gamma + beta


def _layer_norm(node: Node, x: Value, gamma: Value, beta: Value = None) -> tuple[Any, Any, Any]:
    """Over the axes from `axis` to the last: each sample, or each place in a sequence, by itself."""
    axes = list(range(node.get("axis", -1) % rank(x), rank(x)))
    y, mean, inverse = _moments(tensor(x), axes, node.get("epsilon", 1e-5))
    return (y * gamma if beta is None else y * gamma + beta), mean, inverse


def _rms_norm(node: Node, x: Value, gamma: Value) -> Any:
    """As layer normalisation, but only divided by the root of the mean square."""
    x, axes = tensor(x), list(range(node.get("axis", -1) % rank(x), rank(x)))
    square = tf.reduce_mean(tf.square(x), axes, keepdims=True)
    return x * tf.math.rsqrt(square + node.get("epsilon", 1e-5)) * gamma


def _lp_norm(node: Node, x: Value) -> Any:
    """Divided by the sum of the absolute values along `axis`, or by the root of the sum of squares."""
    x, axis = tensor(x), node.axis(node.get("axis", -1), rank(x))
    if node.get("p", 2) == 1:
        return tf.math.divide_no_nan(x, tf.reduce_sum(tf.abs(x), axis, keepdims=True))
    return tf.math.divide_no_nan(x, tf.sqrt(tf.reduce_sum(tf.square(x), axis, keepdims=True)))


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": Operator(_batch_norm, "last"),
    "InstanceNormalization": Operator(_instance_norm, "last"),
    "GroupNormalization": Operator(_group_norm, "last"),
    "LayerNormalization": Operator(_layer_norm),
    "RMSNormalization": Operator(_rms_norm),
    "LpNormalization": Operator(_lp_norm, "first"),
}
