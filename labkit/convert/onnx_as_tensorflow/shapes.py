"""Operators that change a tensor's shape, not its numbers; most of them also compute shapes themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import (
    Node,
    Operator,
    Value,
    as_ints,
    library,
    rank,
    sizes,
    tensor,
    tf,
)


def _constant(node: Node) -> Value:
    from onnx import numpy_helper

    value = node.get("value")
    if value is not None:
        node.dtype(value.data_type)
        return numpy_helper.to_array(value)
    for name, dtype in (("float", np.float32), ("int", np.int64)):
        for given in (node.get(f"value_{name}"), node.get(f"value_{name}s")):
            if given is not None:
                return np.array(given, dtype)
    raise node.refuse("it holds text or a sparse tensor")


def _shape(node: Node, x: Value) -> Value:
    """The sizes in ONNX's order, from `start` to `end`."""
    full, present = rank(x), sizes(x)
    in_order = [present[node.axis(axis, full)] for axis in range(full)]
    node.channels_last = False
    return _vector(in_order[slice(node.get("start"), node.get("end"))])


def _vector(items: list[Any]) -> Value:
    """Sizes as a shape that is known, or known in part."""
    known = all(isinstance(size, int | np.integer) for size in items)
    vector = np.empty(len(items), np.int64 if known else object)
    for place, size in enumerate(items):  # one by one: numpy would look into a tensor
        vector[place] = size
    return vector


def _size(node: Node, x: Value) -> Value:
    present = sizes(x)
    return np.asarray(_product(present)) if None not in x.shape else tf.size(x, out_type=tf.int64)


def _product(items: list[Any]) -> int:
    return math.prod(int(size) for size in items)


def _dimensions(shape: Value) -> list[Any]:
    """A shape's sizes as Python integers and TensorFlow scalars (int32)."""
    if isinstance(shape, np.ndarray):
        return [int(size) if isinstance(size, np.integer) else size for size in shape]
    return [tf.cast(size, tf.int32) for size in tf.unstack(shape)]


def _packed(items: list[Any]) -> Any:
    """Sizes as TensorFlow wants a shape: a list if all are known, else a tensor."""
    if all(isinstance(size, int) for size in items):
        return items
    return tf.stack([tf.cast(size, tf.int32) for size in items])


def _reshape(node: Node, x: Value, shape: Value) -> Value:
    """ONNX's 0 copies a size and its -1 is what is left; one size not known now is written as -1 instead."""
    if isinstance(shape, tf.Tensor):
        return _reshape_at_run_time(node, tensor(x), shape)
    wanted, present = _dimensions(shape), sizes(x)
    if not node.get("allowzero", 0):
        copied = [axis for axis, size in enumerate(wanted) if isinstance(size, int) and size == 0]
        for axis in copied:
            wanted[axis] = present[axis]
        rest = [size for axis, size in enumerate(present) if axis not in copied]
        others = [s for axis, s in enumerate(wanted) if axis not in copied and not _is_minus_one(s)]
        if any(map(_is_minus_one, wanted)) and all(isinstance(size, int) for size in (*rest, *others)):
            left = _product(rest) // max(_product(others), 1)
            wanted = [left if _is_minus_one(size) else size for size in wanted]
    if isinstance(x, np.ndarray):
        return x.reshape(wanted)
    unknown = [axis for axis, size in enumerate(wanted) if not isinstance(size, int)]
    if unknown and not any(map(_is_minus_one, wanted)):
        wanted[unknown[0]] = -1
    return tf.reshape(x, _packed(wanted))


def _reshape_at_run_time(node: Node, x: Any, shape: Any) -> Any:
    """To a shape of which nothing is known now but its length."""
    length = shape.shape[0]
    if length is None:
        raise node.refuse("the rank of its result is not known: export the model with a constant shape")
    if not node.get("allowzero", 0):
        present = [*sizes(x), *[0] * length][:length]
        shape = tf.where(shape == 0, tf.cast(tf.stack(present), shape.dtype), shape)
    return tf.reshape(x, tf.ensure_shape(shape, [length]))


def _is_minus_one(size: Any) -> bool:
    return isinstance(size, int) and size == -1


def _flatten(node: Node, x: Value) -> Value:
    """[a, b, c, …] → [a·b, c·…]: two axes, cut before `axis`."""
    axis, present = node.get("axis", 1), sizes(x)
    axis = axis + rank(x) if axis < 0 else axis
    halves = []
    for half in (present[:axis], present[axis:]):
        halves.append(_product(half) if all(isinstance(size, int) for size in half) else -1)
    if halves == [-1, -1]:
        halves[1:] = [tf.reduce_prod(tf.stack(present[axis:]))]
    return library(x).reshape(x, _packed(halves))


def _transpose(node: Node, x: Value) -> Value:
    """The axes in the order `perm`, straight from the present layout."""
    full = rank(x)
    order = [node.axis(axis, full) for axis in node.get("perm", range(full)[::-1])]
    node.channels_last = False
    return x if order == list(range(full)) else library(x).transpose(x, order)


def _axes(node: Node, axes: Value) -> list[int]:
    given = node.get("axes") if axes is None else node.known(axes, "axes")
    return [] if given is None else as_ints(given)


def _squeeze(node: Node, x: Value, axes: Value = None) -> Value:
    given = [axis % rank(x) for axis in _axes(node, axes)]
    dropped = given or [axis for axis, size in enumerate(x.shape) if size == 1]
    if isinstance(x, np.ndarray):
        return np.squeeze(x, tuple(dropped))
    if x.shape.as_list().count(None) > 1:  # TensorFlow Lite's converter trips over a squeeze of such a tensor
        return x[tuple(0 if axis in dropped else slice(None) for axis in range(rank(x)))]
    return tf.squeeze(x, dropped) if dropped else x


def _unsqueeze(node: Node, x: Value, axes: Value = None) -> Value:
    given = _axes(node, axes)
    for axis in sorted(axis % (rank(x) + len(given)) for axis in given):
        x = library(x).expand_dims(x, axis)
    return x


def _concat(node: Node, *inputs: Value) -> Value:
    axis = node.axis(node.get("axis"), max(map(rank, inputs)))
    if all(isinstance(value, np.ndarray) for value in inputs):
        return np.concatenate(inputs, axis)
    return tf.concat([tensor(value) for value in inputs], axis)


def _split(node: Node, x: Value, lengths: Value = None) -> tuple[Value, ...]:
    """Pieces of the given lengths, or as many as there are outputs, the last being what is left."""
    axis, count = node.axis(node.get("axis", 0), rank(x)), len(node.wanted)
    full = x.shape[axis]
    given = node.get("split") if lengths is None else node.known(lengths, "lengths")
    if given is None:
        if full is None:
            raise node.refuse("it cuts an axis of unknown length in equal parts: fix that axis")
        part = -(-full // count)
        given = [part] * (count - 1) + [full - part * (count - 1)]
    return tuple(tf.split(x, as_ints(given), axis))


def _expand(node: Node, x: Value, shape: Value) -> Value:
    """To the shape that `x` and `shape` broadcast to."""
    wanted, present = _dimensions(shape), sizes(x)
    full = max(len(wanted), len(present))
    wanted = [1] * (full - len(wanted)) + wanted
    present = [1] * (full - len(present)) + present
    return tf.broadcast_to(tensor(x), _packed([_wider(a, b) for a, b in zip(present, wanted, strict=True)]))


def _wider(size: Any, other: Any) -> Any:
    """The size that two sizes broadcast to."""
    if isinstance(size, int) and isinstance(other, int):
        return other if size == 1 else size
    for one, another in ((size, other), (other, size)):
        if isinstance(one, int):
            return another if one == 1 else one
    return tf.maximum(size, other)


def _tile(node: Node, x: Value, repeats: Value) -> Value:
    return tf.tile(tensor(x), _packed(_dimensions(repeats)))


def _constant_of_shape(node: Node, shape: Value) -> Value:
    from onnx import numpy_helper

    value = node.get("value")
    filler = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return tf.fill(_packed(_dimensions(shape)), filler.reshape(()))


def _range(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    return tf.range(*map(tensor, (start, limit, delta)))


def _pad(node: Node, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> Value:
    """Constants around the tensor, or its own numbers: then each axis is gathered by padded indices."""
    full, mode = rank(x), node.get("mode", "constant")
    given = as_ints(node.known(pads, "pads"))
    which = range(full) if axes is None else as_ints(node.known(axes, "axes"))
    amounts = [(0, 0)] * full
    for number, axis in enumerate(which):
        amounts[node.axis(axis, full)] = (given[number], given[number + len(given) // 2])
    if mode != "constant":
        for axis, amount in enumerate(amounts):
            if amount != (0, 0):
                x = tf.gather(x, _padded_indices(node, x.shape[axis], amount, mode), axis=axis)
        return x
    cut = tuple(slice(max(-a, 0), -max(-b, 0) or None) for a, b in amounts)
    x = x[cut] if any(min(amount) < 0 for amount in amounts) else x
    filler = tf.zeros([], x.dtype) if value is None else tf.reshape(tensor(value), [])
    return tf.pad(x, [[max(a, 0), max(b, 0)] for a, b in amounts], constant_values=filler)


def _padded_indices(node: Node, size: int | None, amount: tuple[int, int], mode: str) -> Value:
    if size is None:
        raise node.refuse(f"it pads an axis of unknown length by {mode!r}: fix that axis")
    before, after = (max(each, 0) for each in amount)
    padded = np.pad(np.arange(size), (before, after), mode=mode)  # type: ignore[call-overload]
    return padded[max(-amount[0], 0) : len(padded) - max(-amount[1], 0)]


def _depth_to_space(node: Node, x: Any) -> Any:
    """[N, H, W, b²·C] → [N, H·b, W·b, C]; in mode "CRD" the channel is the slower index of the last axis."""
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        x = tf.gather(x, np.arange(x.shape[-1]).reshape(-1, block**2).T.reshape(-1), axis=-1)
    return tf.nn.depth_to_space(x, block)


def _space_to_depth(node: Node, x: Any) -> Any:
    """[N, H·b, W·b, C] → [N, H, W, b²·C], the other way round."""
    block = node.get("blocksize")
    y = tf.nn.space_to_depth(x, block)
    if node.get("mode", "DCR") == "CRD":
        y = tf.gather(y, np.arange(y.shape[-1]).reshape(block**2, -1).T.reshape(-1), axis=-1)
    return y


OPERATORS: dict[str, Operator] = {
    "Constant": Operator(_constant),
    "ConstantOfShape": Operator(_constant_of_shape),
    "Range": Operator(_range),
    "Shape": Operator(_shape, "first"),
    "Size": Operator(_size, "first"),
    "Reshape": Operator(_reshape),
    "Flatten": Operator(_flatten),
    "Transpose": Operator(_transpose, "first"),
    "Squeeze": Operator(_squeeze),
    "Unsqueeze": Operator(_unsqueeze),
    "Concat": Operator(_concat, "all"),
    "Split": Operator(_split, "first"),
    "Expand": Operator(_expand),
    "Tile": Operator(_tile),
    "Pad": Operator(_pad, "first"),
    "DepthToSpace": Operator(_depth_to_space, "last"),
    "SpaceToDepth": Operator(_space_to_depth, "last"),
}
