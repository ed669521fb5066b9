"""Operators that make one number out of many along some axes, and those that share one out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import Node, Operator, Value, as_ints, boxed, rank, tensor, tf


def _reduce(
    function: Callable[..., Any],
    before: Callable[[Any], Any] | None = None,
    after: Callable[[Any], Any] | None = None,
) -> Operator:
    """after(function(before(x), axes)); without axes over all of them, or over none with `noop_with_empty_axes`."""

    def apply(node: Node, x: Value, axes: Value = None) -> Any:
        full, given = rank(x), node.get("axes") if axes is None else node.known(axes, "axes")
        named = [] if given is None else as_ints(given)
        if not named and not node.get("noop_with_empty_axes", 0):
            named = list(range(full))
        if isinstance(x, np.ndarray) and x.dtype == object and node.kind == "ReduceProd" and full == 1:
            return _product(x, bool(node.get("keepdims", 1)))
        x, kept = tensor(x), bool(node.get("keepdims", 1))
        x = before(x) if before else x
        if named:
            order = [axis for axis in range(full) if axis not in {each % full for each in named}]
            places = [node.axis(axis, full) for axis in order]
            if not kept and places != sorted(places):  # the channel stays and so does an axis after it
                x = tf.transpose(x, [node.axis(axis, full) for axis in range(full)])
                node.channels_last = False
            x = function(x, [node.axis(axis, full) for axis in named], keepdims=kept)
            node.channels_last = node.channels_last and kept
        return after(x) if after else x

    return Operator(apply, "first")


def _product(sizes: Value, kept: bool) -> Value:
    """The product of a shape that is known in part."""
    total = boxed(np.prod(sizes))
    return total.reshape(1) if kept else total


def _max(x: Any, axes: list[int], keepdims: bool) -> Any:
    return (tf.reduce_any if x.dtype == tf.bool else tf.reduce_max)(x, axes, keepdims=keepdims)


def _min(x: Any, axes: list[int], keepdims: bool) -> Any:
    return (tf.reduce_all if x.dtype == tf.bool else tf.reduce_min)(x, axes, keepdims=keepdims)


def _log_sum_exp(x: Any, axes: list[int], keepdims: bool) -> Any:
    return tf.reduce_logsumexp(x, axes, keepdims=keepdims)


def _softmax(function: Callable[..., Any]) -> Operator:
    return Operator(
        lambda node, x: function(tensor(x), axis=node.axis(node.get("axis", -1), rank(x))), "first"
    )


OPERATORS: dict[str, Operator] = {
    "ReduceMean": _reduce(tf.reduce_mean),
    "ReduceSum": _reduce(tf.reduce_sum),
    "ReduceProd": _reduce(tf.reduce_prod),
    "ReduceMax": _reduce(_max),
    "ReduceMin": _reduce(_min),
    "ReduceL1": _reduce(tf.reduce_sum, before=tf.abs),
    "ReduceL2": _reduce(tf.reduce_sum, before=tf.square, after=tf.sqrt),
    "ReduceSumSquare": _reduce(tf.reduce_sum, before=tf.square),
    "ReduceLogSum": _reduce(tf.reduce_sum, after=tf.math.log),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "Softmax": _softmax(tf.nn.softmax),
    "LogSoftmax": _softmax(tf.nn.log_softmax),
}
