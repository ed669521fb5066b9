"""Products of matrices, and the rounding to integers that makes them small."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import (
    Node,
    Operator,
    Value,
    along,
    library,
    rank,
    tensor,
    tf,
)


def _gemm(node: Node, a: Value, b: Value, c: Value = None) -> Any:
    """Alpha · A·B + beta · C, A [M, K], B [K, N]; a constant is transposed and scaled now."""
    a = library(a).transpose(a) if node.get("transA", 0) else a
    b = library(b).transpose(b) if node.get("transB", 0) else b
    product = tf.matmul(a, _scaled(b, node.get("alpha", 1.0)))
    if c is None:
        return product
    if rank(c) == 2 and c.shape[0] == 1:  # TensorFlow fuses a bias into a product, and takes only a vector
        c = library(c).reshape(c, [-1])
    return product + _scaled(c, node.get("beta", 1.0))


def _scaled(x: Value, factor: float) -> Value:
    return x if factor == 1 else x * (x.dtype.type(factor) if isinstance(x, np.ndarray) else factor)


def _matmul(node: Node, a: Value, b: Value) -> Any:
    """As numpy's: a vector is a row on the left and a column on the right, and the axis goes again after."""
    row, column = rank(a) == 1, rank(b) == 1
    a = tensor(a)[None, :] if row else a
    b = tensor(b)[:, None] if column else b
    product = tf.matmul(a, b)
    product = tf.squeeze(product, -1) if column else product
    return tf.squeeze(product, -1 if column else -2) if row else product


def _einsum(node: Node, *inputs: Value) -> Any:
    return tf.einsum(node.get("equation").replace(" ", ""), *map(tensor, inputs))


def _quantize(node: Node, x: Value, scale: Value, zero_point: Value = None) -> Any:
    """Round x / scale, add zero_point, and stay inside the integer type; halves go to the even neighbour."""
    scale, zero_point = _per_axis(node, x, scale), _per_axis(node, x, zero_point)
    default = node.dtype(node.get("output_dtype") or 2)
    dtype = default if zero_point is None else np.dtype(tensor(zero_point).dtype.as_numpy_dtype)
    if node.checked(dtype).kind not in "iu":
        raise node.refuse(f"it rounds to {dtype.name}: use an integer type")
    q = tf.round(tf.cast(x, tf.float32) / tf.cast(scale, tf.float32))
    q = q if zero_point is None else q + tf.cast(zero_point, tf.float32)
    bounds = np.iinfo(dtype)
    return tf.cast(tf.clip_by_value(q, float(bounds.min), float(bounds.max)), dtype)


def _dequantize(node: Node, x: Value, scale: Value, zero_point: Value = None) -> Any:
    """(q - zero_point) · scale, in the scale's dtype."""
    factor, zero_point = tensor(_per_axis(node, x, scale)), _per_axis(node, x, zero_point)
    whole = tf.cast(x, tf.float32)
    whole = whole if zero_point is None else whole - tf.cast(zero_point, tf.float32)
    return tf.cast(whole * tf.cast(factor, tf.float32), factor.dtype)


def _per_axis(node: Node, x: Value, values: Value) -> Value:
    """One scale for the tensor, or one for each place along `axis`."""
    if values is None or rank(values) == 0:
        return values
    if node.get("block_size", 0) or rank(values) > 1:
        raise node.refuse("it has a scale for each block: use one per tensor or per axis")
    if values.shape == (1,):
        return library(values).reshape(values, [])
    return along(node.axis(node.get("axis", 1), rank(x)), rank(x), values)


OPERATORS: dict[str, Operator] = {
    "Gemm": Operator(_gemm),
    "MatMul": Operator(_matmul),
    "Einsum": Operator(_einsum),
    "QuantizeLinear": Operator(_quantize, "first"),
    "DequantizeLinear": Operator(_dequantize, "first"),
}
