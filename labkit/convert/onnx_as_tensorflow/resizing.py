"""Resize: each number of the result is a weighted sum of a few numbers of the input, one axis after the other.

Which ones and with which weights depends on sizes alone, so it is worked out once with numpy, for every mode
and every convention of where the middle of a pixel lies; what runs is a gather, a multiplication and a sum
per tap. Source: the operator's definition in ONNX (Resize, opset 19) and its reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import Node, Operator, Value, along, rank, tensor, tf
from labkit.variant import Array

# (place in the result, scale, length of the result, length of the input) → place in the input
_PLACES: dict[str, Callable[..., Array]] = {
    "half_pixel": lambda i, scale, new, old: (i + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda i, scale, new, old: (
        old / 2 * (1 - new / (scale * old)) + (i + 0.5) / scale - 0.5
    ),
    "pytorch_half_pixel": lambda i, scale, new, old: (i + 0.5) / scale - 0.5 if new > 1 else 0 * i,
    "align_corners": lambda i, scale, new, old: (
        i * (old - 1) / (scale * old - 1) if new > 1 else 0 * i  # the length before it is rounded
    ),
    "asymmetric": lambda i, scale, new, old: i / scale,
}
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resize(node: Node, x: Value, roi: Value = None, scales: Value = None, given: Value = None) -> Any:
    """Every axis whose length or scale changes, by indices [new, taps] and weights [new, taps]."""
    x, full = tensor(x), rank(x)
    which = [int(axis) % full for axis in node.get("axes", range(full))]
    old = [x.shape[node.axis(axis, full)] for axis in which]
    for axis, before, scale, new in zip(which, old, *_lengths(node, old, scales, given), strict=True):
        if before is not None and (new, scale) != (before, 1):
            places, weights = _taps(node, before, new, scale)
            x = _weighted(x, node.axis(axis, full), places, weights)
    return x


def _lengths(node: Node, old: list[Any], scales: Value, given: Value) -> tuple[list[float], list[int]]:
    """The scale and the new length of each axis, out of whichever of the two the node has."""
    unknown = node.refuse("it changes an axis of unknown length: fix the size of the image")
    scales, given = node.known(scales, "scales"), node.known(given, "sizes")
    if scales is not None and scales.size:
        factors = [float(scale) for scale in scales]
        if any(n is None and factor != 1 for n, factor in zip(old, factors, strict=True)):
            raise unknown
        return factors, [0 if n is None else int(n * f) for n, f in zip(old, factors, strict=True)]
    if None in old:
        raise unknown
    lengths = [int(length) for length in given]
    factors = [new / n for new, n in zip(lengths, old, strict=True)]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        one = max(factors) if policy == "not_smaller" else min(factors)
        factors, lengths = [one] * len(old), [int(one * n + 0.5) for n in old]
    return factors, lengths


def _taps(node: Node, old: int, new: int, scale: float) -> tuple[Array, Array]:
    """Which numbers of an axis make each new one: indices [new, taps] inside the axis, weights [new, taps]."""
    convention, mode = node.get("coordinate_transformation_mode", "half_pixel"), node.get("mode", "nearest")
    if convention not in _PLACES:
        raise node.refuse(f"its pixels lie by {convention!r}: use one of {', '.join(_PLACES)}")
    middle = _PLACES[convention](np.arange(new), scale, new, old)
    if mode == "nearest":
        nearest = _NEAREST[node.get("nearest_mode", "round_prefer_floor")](middle)
        return np.clip(nearest, 0, old - 1).astype(np.int32)[:, None], np.ones((new, 1))
    reach = 1 if mode == "linear" else 2
    spread = min(scale, 1.0) if node.get("antialias", 0) else 1.0  # a smaller image looks at more numbers
    taps = int(np.ceil(reach / spread))
    places = np.floor(middle)[:, None] + np.arange(1 - taps, taps + 1)
    distance = np.abs(places - middle[:, None]) * spread
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, node)
    if node.get("exclude_outside", 0):
        weights = np.where((places < 0) | (places >= old), 0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    return np.clip(places, 0, old - 1).astype(np.int32), weights


def _cubic(distance: Array, node: Node) -> Array:
    """The cubic kernel of two pieces (Keys 1981), `cubic_coeff_a` being its slope."""
    a, d = node.get("cubic_coeff_a", -0.75), distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _weighted(x: Any, axis: int, places: Array, weights: Array) -> Any:
    """The sum over taps of weight times what lies at that place, along one axis of x."""
    taps = [tap for tap in range(places.shape[1]) if np.any(weights[:, tap])]
    if len(taps) == 1 and np.all(weights[:, taps[0]] == 1):
        return tf.gather(x, places[:, taps[0]], axis=axis)
    dtype = x.dtype.as_numpy_dtype
    return tf.add_n(
        [
            tf.gather(x, places[:, tap], axis=axis) * along(axis, rank(x), weights[:, tap].astype(dtype))
            for tap in taps
        ]
    )


OPERATORS: dict[str, Operator] = {"Resize": Operator(_resize, "first")}
