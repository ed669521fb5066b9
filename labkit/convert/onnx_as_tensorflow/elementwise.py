"""Operators that work number by number: none cares where an axis lies, so any layout passes through them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import Node, Operator, Value, boxed, library, tensor, tf

# erf(x) = x · P(x²) / Q(x²) on ±4, to the last bit or two of float32 (the coefficients are Eigen's and XLA's).
# TensorFlow Lite has no erf of its own, and multiplies and adds everywhere.
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes: function(*tensors)."""
    return Operator(lambda node, *inputs: function(*map(tensor, inputs)), "all")


def _sizes(function: Callable[..., Any]) -> Operator:
    """Arithmetic that shapes go through as well: known and partly known values stay what they are."""

    def apply(node: Node, *inputs: Value) -> Value:
        if not all(isinstance(value, np.ndarray) for value in inputs):
            return function(*map(tensor, inputs))
        if any(value.dtype == object for value in inputs):
            return boxed(function(*(value.astype(object) for value in inputs)))
        return function(*inputs)

    return Operator(apply, "all")


def _with(function: Callable[..., Any]) -> Operator:
    """An operator with attributes: function(node, *tensors)."""
    return Operator(
        lambda node, *inputs: function(node, *(None if x is None else tensor(x) for x in inputs)), "all"
    )


def _many(function: Callable[..., Any]) -> Callable[..., Any]:
    """The operator of any number of operands out of the one of two."""
    return lambda *inputs: functools.reduce(function, inputs)


def _divide(a: Value, b: Value) -> Value:
    """A / b; of integers the part before the point, as in C."""
    if a.dtype == object:
        return a // b  # sizes are not negative
    floating = np.dtype(a.dtype).kind == "f" if isinstance(a, np.ndarray) else not a.dtype.is_integer
    return a / b if floating else tf.truncatediv(a, b)


def _mod(node: Node, a: Any, b: Any) -> Any:
    """The remainder, with the sign of a if `fmod`, else of b."""
    if not node.get("fmod", 0):
        return tf.math.floormod(a, b)
    between = tf.float32 if a.dtype.is_floating and a.dtype.size < 4 else a.dtype  # no kernel for 16 bits
    return tf.cast(tf.truncatemod(tf.cast(a, between), tf.cast(b, between)), a.dtype)


def _pow(a: Any, b: Any) -> Any:
    """a^b in a's dtype, whatever b's is."""
    between = tf.float32 if a.dtype.is_integer and b.dtype.is_floating else a.dtype
    return tf.cast(tf.pow(tf.cast(a, between), tf.cast(b, between)), a.dtype)


def _erf(x: Any) -> Any:
    if x.dtype != tf.float32:
        return tf.math.erf(x)
    x = tf.clip_by_value(x, -4.0, 4.0)
    return x * tf.math.polyval(list(_ERF_P), x * x) / tf.math.polyval(list(_ERF_Q), x * x)


def _gelu(node: Node, x: Any) -> Any:
    return tf.nn.gelu(x, approximate=node.get("approximate", "none") == "tanh")


def _negative_part(x: Any, below: Any) -> Any:
    """X where it is positive, `below` (computed of the rest) where it is not."""
    return tf.where(x > 0, x, below)


def _elu(node: Node, x: Any) -> Any:
    return _negative_part(x, node.get("alpha", 1.0) * tf.math.expm1(tf.minimum(x, 0)))


def _selu(node: Node, x: Any) -> Any:
    alpha, gamma = node.get("alpha", 1.6732631921768188), node.get("gamma", 1.0507009873554805)
    return gamma * _negative_part(x, alpha * tf.math.expm1(tf.minimum(x, 0)))


def _celu(node: Node, x: Any) -> Any:
    alpha = node.get("alpha", 1.0)
    return _negative_part(x, alpha * tf.math.expm1(tf.minimum(x, 0) / alpha))


def _hard_sigmoid(node: Node, x: Any) -> Any:
    return tf.clip_by_value(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else tf.maximum(x, low)
    return x if high is None else tf.minimum(x, high)


def _is_inf(node: Node, x: Any) -> Any:
    signs = [x > 0] * bool(node.get("detect_positive", 1)) + [x < 0] * bool(node.get("detect_negative", 1))
    wanted = functools.reduce(tf.logical_or, signs, tf.zeros_like(x, tf.bool))
    return tf.logical_and(tf.math.is_inf(x), wanted)


def _cast(node: Node, x: Value) -> Value:
    return _to_dtype(x, node.dtype(node.get("to")))


def _cast_like(node: Node, x: Value, like: Value) -> Value:
    dtype = like.dtype if isinstance(like, np.ndarray) else like.dtype.as_numpy_dtype
    return _to_dtype(x, node.checked(np.dtype(np.int64 if dtype == np.object_ else dtype)))


def _to_dtype(x: Value, dtype: np.dtype[Any]) -> Value:
    if library(x) is np and x.dtype == object and dtype.kind in "iu":
        return x  # sizes are integers already
    return tf.cast(tensor(x), dtype)


def _equal(a: Value, b: Value) -> Value:
    """A = b; a size that is not known now is not negative, which is what exporters ask of shapes."""
    if library(a) is np and library(b) is np and object in (a.dtype, b.dtype):
        a, b = np.broadcast_arrays(a.astype(object), b.astype(object))
        pairs = list(zip(a.reshape(-1), b.reshape(-1), strict=True))
        if all(isinstance(p, int) and isinstance(q, int) or _below(p) or _below(q) for p, q in pairs):
            same = [isinstance(p, int) and isinstance(q, int) and p == q for p, q in pairs]
            return np.array(same, bool).reshape(a.shape)
    return tf.equal(tensor(a), tensor(b))


def _below(size: Any) -> bool:
    return isinstance(size, int) and size < 0


def _where(node: Node, condition: Value, a: Value, b: Value) -> Value:
    if all(isinstance(value, np.ndarray) for value in (condition, a, b)) and condition.dtype == bool:
        return np.where(condition, a, b)
    return tf.where(tensor(condition), tensor(a), tensor(b))


def _dropout(node: Node, x: Value, ratio: Value = None, training: Value = None) -> tuple[Value, Value]:
    """Nothing is dropped when a model runs."""
    if training is not None and np.any(node.known(training, "training_mode")):
        raise node.refuse("it is in training mode: export the model in evaluation mode")
    return x, tf.ones_like(tensor(x), tf.bool)


OPERATORS: dict[str, Operator] = {
    "Identity": Operator(lambda node, x: x, "all"),
    "Dropout": Operator(_dropout, "all"),
    "Cast": Operator(_cast, "all"),
    "CastLike": Operator(_cast_like, "first"),
    "Where": Operator(_where, "all"),
    # arithmetic
    "Add": _sizes(operator.add),
    "Sub": _sizes(operator.sub),
    "Mul": _sizes(operator.mul),
    "Div": _sizes(_divide),
    "Mod": _with(_mod),
    "Pow": _plain(_pow),
    "Neg": _plain(tf.negative),
    "Abs": _plain(tf.abs),
    "Sign": _plain(tf.sign),
    "Min": _plain(_many(tf.minimum)),
    "Max": _plain(_many(tf.maximum)),
    "Sum": _plain(_many(tf.add)),
    "Mean": _plain(lambda *inputs: functools.reduce(tf.add, inputs) / len(inputs)),
    "Clip": _with(lambda node, *inputs: _clip(*inputs)),
    "Floor": _plain(tf.floor),
    "Ceil": _plain(tf.math.ceil),
    "Round": _plain(tf.round),
    "Reciprocal": _plain(tf.math.reciprocal),
    "Sqrt": _plain(tf.sqrt),
    "Exp": _plain(tf.exp),
    "Log": _plain(tf.math.log),
    "Erf": _plain(_erf),
    # angles; the inverses by atan2, and the others by exp, sin and cos, which TensorFlow Lite has
    "Sin": _plain(tf.sin),
    "Cos": _plain(tf.cos),
    "Tan": _plain(lambda x: tf.sin(x) / tf.cos(x)),
    "Asin": _plain(lambda x: tf.atan2(x, tf.sqrt((1 - x) * (1 + x)))),
    "Acos": _plain(lambda x: tf.atan2(tf.sqrt((1 - x) * (1 + x)), x)),
    "Atan": _plain(lambda x: tf.atan2(x, tf.ones_like(x))),
    "Sinh": _plain(lambda x: (tf.exp(x) - tf.exp(-x)) / 2),
    "Cosh": _plain(lambda x: (tf.exp(x) + tf.exp(-x)) / 2),
    # activations
    "Relu": _plain(lambda x: tf.maximum(x, 0) if x.dtype.is_integer else tf.nn.relu(x)),
    "LeakyRelu": _with(lambda node, x: tf.nn.leaky_relu(x, node.get("alpha", 0.01))),
    "PRelu": _plain(lambda x, slope: tf.maximum(x, 0) + slope * tf.minimum(x, 0)),
    "Elu": _with(_elu),
    "Selu": _with(_selu),
    "Celu": _with(_celu),
    "Gelu": _with(_gelu),
    "Sigmoid": _plain(tf.sigmoid),
    "HardSigmoid": _with(_hard_sigmoid),
    "HardSwish": _plain(lambda x: x * tf.clip_by_value(x / 6 + 0.5, 0, 1)),
    "Tanh": _plain(tf.tanh),
    "Softplus": _plain(tf.math.softplus),
    "Softsign": _plain(tf.nn.softsign),
    "Mish": _plain(lambda x: x * tf.tanh(tf.math.softplus(x))),
    "Swish": _with(lambda node, x: x * tf.sigmoid(node.get("alpha", 1.0) * x)),
    # comparisons
    "Equal": Operator(lambda node, a, b: _equal(a, b), "all"),
    "Greater": _plain(tf.greater),
    "GreaterOrEqual": _plain(tf.greater_equal),
    "Less": _plain(tf.less),
    "LessOrEqual": _plain(tf.less_equal),
    "Not": _plain(tf.logical_not),
    "And": _plain(tf.logical_and),
    "Or": _plain(tf.logical_or),
    "Xor": _plain(tf.math.logical_xor),
    "IsNaN": _plain(tf.math.is_nan),
    "IsInf": _with(_is_inf),
}
