"""Operators that pick numbers by their place: slices, gathers and scatters, and what sorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import (
    Node,
    Operator,
    Value,
    along,
    as_ints,
    boxed,
    is_known,
    library,
    rank,
    sizes,
    tensor,
    tf,
)


def _slice(
    node: Node, x: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> Value:
    """Python's own slices, but that an end before the first element is written as a large negative number."""
    count = len(starts) if isinstance(starts, np.ndarray) else starts.shape[0]
    which = range(count) if axes is None else as_ints(node.known(axes, "axes"))
    by = [1] * count if steps is None else as_ints(node.known(steps, "steps"))
    index = [slice(None)] * rank(x)
    for number, axis in enumerate(which):
        place = node.axis(axis, rank(x))
        start, end = (_bound(values[number]) for values in (starts, ends))
        index[place] = _clamped(start, end, by[number], x.shape[place])
    return x[tuple(index)]


def _bound(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


def _clamped(start: Any, end: Any, step: int, size: int | None) -> slice:
    """ONNX's bounds as Python's: INT64_MAX and its like stand for "to the end"."""
    far = 2**31 - 1
    if isinstance(end, int):
        past = size if size is not None else far
        end = None if (step > 0 and end >= past) or (step < 0 and end < -past) else end
    if isinstance(start, int):
        if size is not None:
            start = min(max(start, -size), size)
        start = None if start in (0, far) and (start == 0) == (step > 0) else start
    return slice(start, end, step)


def _from_the_front(indices: Value, size: Any) -> Value:
    """Indices that may count from the end → from the front."""
    if is_known(indices) and (isinstance(size, int) or not np.any(indices < 0)):
        return np.where(indices < 0, indices + size, indices) if isinstance(size, int) else indices
    indices = tensor(indices)
    return tf.where(indices < 0, indices + tf.cast(size, indices.dtype), indices)


def _gather(node: Node, x: Value, indices: Value) -> Value:
    axis = node.axis(node.get("axis", 0), rank(x))
    if library(x) is np and is_known(indices):
        return boxed(np.take(x, indices, axis))
    return tf.gather(tensor(x), _from_the_front(indices, sizes(x)[axis]), axis=axis)


def _every_place(indices: Any, axis: int, size: Any) -> Any:
    """The full coordinates [..., rank] of what GatherElements' indices name: their own place but for `axis`."""
    indices, full = tensor(_from_the_front(indices, size)), rank(indices)
    shape = tf.shape(indices, out_type=indices.dtype)
    own = [along(each, full, tf.range(shape[each])) for each in range(full)]
    own[axis] = indices
    return tf.stack([tf.broadcast_to(place, shape) for place in own], -1)


def _gather_elements(node: Node, x: Value, indices: Value) -> Any:
    axis = node.axis(node.get("axis", 0), rank(x))
    return tf.gather_nd(tensor(x), _every_place(indices, axis, sizes(x)[axis]))


def _gather_nd(node: Node, x: Value, indices: Value) -> Any:
    batch, depth = node.get("batch_dims", 0), indices.shape[-1]
    if depth is None:
        raise node.refuse("the last axis of its indices has an unknown length: fix it")
    found = _from_the_front_nd(indices, sizes(x)[batch : batch + depth])
    return tf.gather_nd(tensor(x), found, batch_dims=batch)


def _from_the_front_nd(indices: Value, axes: Sequence[Any]) -> Any:
    indices = tensor(indices)
    size = tf.stack([tf.cast(each, indices.dtype) for each in axes])  # some are known only at run time
    return tf.where(indices < 0, indices + size, indices)


def _scatter_nd(node: Node, x: Value, indices: Value, updates: Value) -> Any:
    found = _from_the_front_nd(indices, sizes(x)[: indices.shape[-1]])
    return _scattered(node, tensor(x), found, tensor(updates))


def _scatter_elements(node: Node, x: Value, indices: Value, updates: Value) -> Any:
    axis = node.axis(node.get("axis", 0), rank(x))
    return _scattered(node, tensor(x), _every_place(indices, axis, sizes(x)[axis]), tensor(updates))


def _scattered(node: Node, x: Any, places: Any, updates: Any) -> Any:
    how = node.get("reduction", "none")
    scatter = {
        "none": tf.tensor_scatter_nd_update,
        "add": tf.tensor_scatter_nd_add,
        "min": tf.tensor_scatter_nd_min,
        "max": tf.tensor_scatter_nd_max,
    }.get(how)
    if scatter is None:
        raise node.refuse(f"TensorFlow scatters no {how!r}; it does none, add, min and max")
    return scatter(x, places, updates)


def _arg(best: Any) -> Operator:
    """The place of the largest (or smallest) number along an axis; of equal ones the first, or the last."""

    def apply(node: Node, x: Any) -> Any:
        x, axis = tensor(x), node.axis(node.get("axis", 0), rank(x))
        if node.get("select_last_index", 0):
            size = tf.cast(sizes(x)[axis], tf.int64)
            place = size - 1 - best(tf.reverse(x, [axis]), axis, output_type=tf.int64)
        else:
            place = best(x, axis, output_type=tf.int64)
        return tf.expand_dims(place, axis) if node.get("keepdims", 1) else place

    return Operator(apply)


def _top_k(node: Node, x: Value, count: Value) -> tuple[Any, Any]:
    """The `count` largest (or smallest) along an axis, in order, and where they were."""
    x, axis = tensor(x), node.axis(node.get("axis", -1), rank(x))
    order = [each for each in range(rank(x)) if each != axis] + [axis]
    back = list(np.argsort(order))
    turned = tf.transpose(x, order)
    if not node.get("largest", 1):
        turned = -turned if x.dtype.is_floating else tf.bitwise.invert(turned)
    k = int(np.asarray(count).item()) if is_known(count) else tf.reshape(tf.cast(count, tf.int32), [])
    values, places = tf.math.top_k(turned, k)
    if not node.get("largest", 1):
        values = -values if x.dtype.is_floating else tf.bitwise.invert(values)
    return tf.transpose(values, back), tf.cast(tf.transpose(places, back), tf.int64)


def _cum_sum(node: Node, x: Value, axis: Value) -> Any:
    place = node.axis(int(np.asarray(node.known(axis, "axis")).item()), rank(x))
    return tf.cumsum(tensor(x), place, bool(node.get("exclusive", 0)), bool(node.get("reverse", 0)))


def _one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Any:
    depth = int(np.asarray(node.known(depth, "depth")).item())
    off, on = tf.unstack(tensor(values), num=2)
    places = tf.cast(tensor(indices), tf.int64)
    places = tf.where(places < 0, places + depth, places)
    return tf.one_hot(places, depth, on, off, axis=node.get("axis", -1) % (rank(places) + 1))


def _trilu(node: Node, x: Value, k: Value = None) -> Any:
    """The upper (or lower) triangle of the last two axes, cut at diagonal k; zeros elsewhere."""
    x = tensor(x)
    rows, columns = (tf.range(size) for size in sizes(x)[-2:])
    diagonal = 0 if k is None else tf.reshape(tf.cast(tensor(k), tf.int32), [])
    above = columns[None, :] - rows[:, None]
    kept = above >= diagonal if node.get("upper", 1) else above <= diagonal
    return tf.where(kept, x, tf.zeros([], x.dtype))


OPERATORS: dict[str, Operator] = {
    "Slice": Operator(_slice, "first"),
    "Gather": Operator(_gather),
    "GatherElements": Operator(_gather_elements),
    "GatherND": Operator(_gather_nd),
    "ScatterND": Operator(_scatter_nd),
    "ScatterElements": Operator(_scatter_elements),
    "ArgMax": _arg(tf.argmax),
    "ArgMin": _arg(tf.argmin),
    "TopK": Operator(_top_k),
    "CumSum": Operator(_cum_sum),
    "OneHot": Operator(_one_hot),
    "Trilu": Operator(_trilu),
}
