"""LSTM, GRU and RNN: one cell, applied to one step of a sequence after the other.

The half of each step that does not wait for the one before, x·Wᵀ + b, is one product for the whole sequence.
The rest is written out step by step where the length is known, and a loop where it is not: each turn
drops the first row of the outputs and adds one at the end, because TensorFlow Lite has no arrays of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.convert.onnx_as_tensorflow.node import Node, Operator, Value, library, sizes, tensor, tf

State = tuple[Any, ...]  # (h,) or (h, c), each [N, H]
Step = Callable[[Any, State], State]
_MOST_WRITTEN_OUT = 128  # steps

_ACTIVATIONS = {"Sigmoid": tf.sigmoid, "Tanh": tf.tanh, "Relu": tf.nn.relu, "Softsign": tf.nn.softsign}


def _lstm_cell(node: Node, act: list[Any], r: Value, b: Value) -> Step:
    """Gates i, o, f, c (the order of ONNX's weights)."""
    recurrent = tensor(library(r).transpose(r))

    def step(x: Any, state: State) -> State:
        h, c = state
        i, o, f, g = tf.split(x + tf.matmul(h, recurrent), 4, -1)
        c = act[0](f) * c + act[0](i) * act[1](g)
        return act[0](o) * act[2](c), c

    return step


def _gru_cell(node: Node, act: list[Any], r: Value, b: Value) -> Step:
    """Gates z, r, h; with `linear_before_reset` the reset acts on h·Rᵀ + b, otherwise on h."""
    linear = node.get("linear_before_reset", 0)
    gates, new = (tensor(library(r).transpose(part)) for part in _cut(r, 3))
    bias = 0.0 if b is None else tensor(_cut(b, 3)[1])

    def step(x: Any, state: State) -> State:
        (h,) = state
        x_gates, x_new = tf.split(x, [2 * h.shape[-1], h.shape[-1]], -1)
        z, reset = tf.split(act[0](x_gates + tf.matmul(h, gates)), 2, -1)
        recurrent = reset * (tf.matmul(h, new) + bias) if linear else tf.matmul(reset * h, new) + bias
        return ((1 - z) * act[1](x_new + recurrent) + z * h,)

    return step


def _cut(values: Value, parts: int) -> tuple[Value, Value]:
    """All rows but the last of `parts` blocks, and that block."""
    rows = values.shape[0] // parts * (parts - 1)
    return values[:rows], values[rows:]


def _rnn_cell(node: Node, act: list[Any], r: Value, b: Value) -> Step:
    recurrent = tensor(library(r).transpose(r))
    return lambda x, state: (act[0](x + tf.matmul(state[0], recurrent)),)


def _recurrent(cell: Callable[..., Step], defaults: list[str], states: int) -> Operator:
    """X [T, N, I] (or [N, T, I] with `layout` 1), W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H] → Y, final states."""

    def apply(
        node: Node,
        x: Value,
        w: Value,
        r: Value,
        b: Value = None,
        lengths: Value = None,
        h0: Value = None,
        c0: Value = None,
        peepholes: Value = None,
    ) -> tuple[Any, ...]:
        _check(node, peepholes)
        first = bool(node.get("layout", 0))
        x, hidden = tensor(x), r.shape[-1]
        x = tf.transpose(x, [1, 0, 2]) if first else x
        way = node.get("direction", "forward")
        backward = [way == "reverse"] if way != "bidirectional" else [False, True]
        names = [n.decode() if isinstance(n, bytes) else n for n in node.get("activations", [])]
        names = names or defaults * len(backward)
        given = [None if s is None else tf.transpose(s, [1, 0, 2]) if first else s for s in (h0, c0)[:states]]
        outputs, finals = [], []
        for d, reverse in enumerate(backward):
            per = len(names) // len(backward)
            act = [_activation(node, name) for name in names[d * per : (d + 1) * per]]
            begin = tuple(
                tf.zeros([sizes(x)[1], hidden], x.dtype) if s is None else tensor(s[d]) for s in given
            )
            own, other = (
                (None, None)
                if b is None
                else np.split(b[d], 2)
                if isinstance(b, np.ndarray)
                else tf.split(b[d], 2)
            )
            step = cell(node, act, r[d], other)
            projected = _projected(x, w[d], own, other, keep_last=node.kind == "GRU")
            y, final = _run(step, projected, begin, lengths, reverse)
            outputs.append(y)
            finals.append(final)
        y = tf.stack(outputs, 1)  # [T, D, N, H]
        ends = [tf.stack(each) for each in zip(*finals, strict=True)]
        if first:
            y, ends = tf.transpose(y, [2, 0, 1, 3]), [tf.transpose(end, [1, 0, 2]) for end in ends]
        return (y, *ends)

    return Operator(apply)


def _check(node: Node, peepholes: Value) -> None:
    if peepholes is not None:
        raise node.refuse("it has peepholes: train the model without them")
    for name in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        if node.get(name):
            raise node.refuse(f"it sets {name}: export it without")


def _activation(node: Node, name: str) -> Any:
    if name not in _ACTIVATIONS:
        raise node.refuse(f"its activation is {name}: use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _projected(x: Any, w: Value, own: Value, other: Value, keep_last: bool) -> Any:
    """X·Wᵀ + both biases for all steps [T, N, G·H]; without the GRU's last, which its reset may scale."""
    y = tf.matmul(x, library(w).transpose(w))
    if own is None:
        return y
    if keep_last:
        rows = w.shape[0] // 3 * 2
        other = library(other).concat([other[:rows], library(other).zeros_like(other[rows:])], 0)
    return y + (own + other)


def _run(step: Step, x: Any, state: State, lengths: Value, reverse: bool) -> tuple[Any, State]:
    """All steps of x [T, N, G]; beyond a sequence's own length its state stays and its output is 0."""
    if reverse:
        x = _reversed(x, lengths)
    limit = None if lengths is None else tensor(lengths)[:, None]

    def masked(t: Any, now: Any, state: State) -> tuple[Any, State]:
        new = step(now, state)
        if limit is None:
            return new[0], new
        inside = tf.cast(t, limit.dtype) < limit
        kept = tuple(tf.where(inside, a, b) for a, b in zip(new, state, strict=True))
        return tf.where(inside, new[0], tf.zeros_like(new[0])), kept

    if x.shape[0] is not None and x.shape[0] <= _MOST_WRITTEN_OUT:
        rows = []
        for t, now in enumerate(tf.unstack(x)):
            row, state = masked(t, now, state)
            rows.append(row)
        y = tf.stack(rows)
    else:
        y, state = _loop(masked, x, state)
    return (_reversed(y, lengths) if reverse else y), state


def _loop(masked: Callable[..., Any], x: Any, state: State) -> tuple[Any, State]:
    total, batch, hidden = tf.shape(x)[0], x.shape[1], state[0].shape[-1]

    def body(t: Any, y: Any, *state: Any) -> tuple[Any, ...]:
        row, state = masked(t, tf.gather(x, t), state)
        return t + 1, tf.concat([y[1:], row[None]], 0), *state

    flow = tf.TensorShape([batch, hidden])
    state = tuple(tf.ensure_shape(s, [None, hidden]) for s in state)
    _, y, *final = tf.while_loop(
        lambda t, *_: t < total,
        body,
        (tf.constant(0), tf.zeros([total, *sizes(state[0])], x.dtype), *state),
        (tf.TensorShape([]), tf.TensorShape([x.shape[0], batch, hidden]), *[flow] * len(state)),
    )
    return y, tuple(final)


def _reversed(x: Any, lengths: Value) -> Any:
    if lengths is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, tensor(lengths), seq_axis=0, batch_axis=1)


OPERATORS: dict[str, Operator] = {
    "LSTM": _recurrent(_lstm_cell, ["Sigmoid", "Tanh", "Tanh"], 2),
    "GRU": _recurrent(_gru_cell, ["Sigmoid", "Tanh"], 1),
    "RNN": _recurrent(_rnn_cell, ["Tanh"], 1),
}
