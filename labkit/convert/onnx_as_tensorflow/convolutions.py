"""Convolutions and pooling: everything that slides a window, channels-last.

ONNX says how much to pad on each side; TensorFlow says "VALID" (nothing), "SAME" (as much as keeps the size,
the odd one at the end) or, for convolutions, a list. "SAME" is written where it means the same, because that
is what TensorFlow Lite has an operator for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

Pads = list[tuple[int, int]]


class _Window:
    """The window of a node over x [N, spatial…, C]: kernel, strides, dilations and padding, one per axis."""

    def __init__(self, node: Node, x: Any, kernel: Sequence[int]) -> None:
        self.node, self.kernel, n = node, list(kernel), len(kernel)
        self.spatial: list[int | None] = x.shape.as_list()[1:-1]
        self.strides = list(node.get("strides", [1] * n))
        self.dilations = list(node.get("dilations", [1] * n))
        self.reach = [d * (k - 1) + 1 for d, k in zip(self.dilations, kernel, strict=True)]
        given, auto = node.get("pads", [0] * 2 * n), node.get("auto_pad", "NOTSET")
        self.auto = auto if auto.startswith("SAME") else ""
        self.pads: Pads = [(0, 0)] * n if auto == "VALID" else list(zip(given[:n], given[n:], strict=True))
        if self.auto and not self._same_as_tensorflow():
            self.pads = [self.same(axis, lower=True) for axis in range(n)]

    def same(self, axis: int, lower: bool = False) -> tuple[int, int]:
        """As much padding as keeps the size; the odd one lies at the end, or at the start if `lower`."""
        size, stride, reach = self.spatial[axis], self.strides[axis], self.reach[axis]
        if size is None and stride > 1:
            raise self.node.refuse("auto_pad with strides needs a known image size: fix that axis")
        total = max((-(-size // stride) - 1) * stride + reach - size, 0) if size is not None else reach - 1
        small, large = total // 2, total - total // 2
        return (large, small) if lower else (small, large)

    def _same_as_tensorflow(self) -> bool:
        return self.auto == "SAME_UPPER"

    def padding(self) -> str | None:
        """The word "VALID" or "SAME" where TensorFlow means by it what ONNX asks for, else None."""
        if self._same_as_tensorflow():
            return "SAME"
        if not any(map(any, self.pads)):
            return "VALID"
        free = any(n is None and s > 1 for n, s in zip(self.spatial, self.strides, strict=True))
        same = not free and self.pads == [self.same(axis) for axis in range(len(self.kernel))]
        return "SAME" if same else None

    def extra(self) -> list[int]:
        """With `ceil_mode`, how much longer each axis must be for its last window, which starts inside it."""
        if not self.node.get("ceil_mode", 0):
            return [0] * len(self.kernel)
        extra = []
        for size, (before, after), reach, stride in zip(
            self.spatial, self.pads, self.reach, self.strides, strict=True
        ):
            if size is None:
                raise self.node.refuse("ceil_mode needs a known image size: fix that axis")
            count = -(-(size + before + after - reach) // stride) + 1
            count -= (count - 1) * stride >= size + before
            extra.append(max((count - 1) * stride + reach - (size + before + after), 0))
        return extra


def _around(pads: Pads) -> list[tuple[int, int]]:
    """Padding of the spatial axes → of all axes of [N, spatial…, C]."""
    return [(0, 0), *pads, (0, 0)]


def _conv(node: Node, x: Any, w: Value, b: Value = None) -> Any:
    """X [N, spatial…, C], w [O, C / groups, kernel…] → [N, spatial…, O]."""
    window, full, groups = _Window(node, x, w.shape[2:]), rank(x), node.get("group", 1)
    filters = library(w).transpose(w, [*range(2, full), 1, 0])
    if groups > 1 and groups == x.shape[-1] and full == 4:
        y = _depthwise(window, x, filters)
    else:
        padding = window.padding()
        if padding is None and full != 4:
            x, padding = tf.pad(x, _around(window.pads)), "VALID"
        convolve = tf.nn.conv2d if full == 4 else tf.nn.convolution
        around = padding or _around(window.pads)
        y = convolve(x, filters, window.strides, around, dilations=window.dilations)
    return y if b is None else y + b


def _depthwise(window: _Window, x: Any, filters: Value) -> Any:
    """Each channel by filters of its own; TensorFlow wants equal strides, and either strides or dilations."""
    kernel, channels = window.kernel, x.shape[-1]
    # filter number c · m + j is the j-th of channel c
    filters = library(filters).reshape(filters, [*kernel, channels, -1])
    padding = window.padding()
    if padding is None:
        x, padding = tf.pad(x, _around(window.pads)), "VALID"
    if max(window.dilations) > 1 < max(window.strides):
        filters, window.dilations = _dilated(filters, window.dilations), [1, 1]
    strides = [1, *window.strides, 1]
    return tf.nn.depthwise_conv2d(x, filters, strides, padding, dilations=window.dilations)


def _dilated(filters: Value, dilations: Sequence[int]) -> Value:
    """A window with holes as a larger window with zeros: [k, …] → [d·(k-1) + 1, …] on the leading axes."""
    for axis, dilation in enumerate(dilations):
        if dilation > 1:
            xp, full = library(filters), rank(filters)
            spread = xp.expand_dims(filters, axis + 1)
            spread = xp.pad(spread, [(0, dilation - 1) if a == axis + 1 else (0, 0) for a in range(full + 1)])
            shape = list(filters.shape)
            length = dilation * (shape[axis] - 1) + 1
            shape[axis] *= dilation
            filters = xp.reshape(spread, shape)[(slice(None),) * axis + (slice(length),)]
    return filters


def _conv_transpose(node: Node, x: Any, w: Value, b: Value = None) -> Any:
    """X [N, spatial…, C], w [C, O / groups, kernel…] → [N, spatial…, O]: every number paints a window.

    The full picture is s·(n-1) + reach long; then it is cut at both ends. "SAME" is the one s·n long.
    """
    groups, full = node.get("group", 1), rank(x)
    window = _Window(node, x, as_ints(w.shape[2:]))
    cuts = _cuts(node, window)
    same = all(
        before + after == reach - stride and before == (reach - stride) // 2
        for (before, after), reach, stride in zip(cuts, window.reach, window.strides, strict=True)
    )
    filters = _dilated(library(w).transpose(w, [*range(2, full), 1, 0]), window.dilations)
    batch, *spatial, _ = sizes(x)
    lengths = [
        n * stride if same else (n - 1) * stride + reach
        for n, reach, stride in zip(spatial, window.reach, window.strides, strict=True)
    ]
    shape, padding = tf.stack([batch, *lengths, filters.shape[-2]]), "SAME" if same else "VALID"
    parts = [
        tf.nn.conv_transpose(part, own, shape, window.strides, padding)
        for part, own in zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
    ]
    y = parts[0] if groups == 1 else tf.concat(parts, -1)
    y = y if same else _cut(y, cuts)
    return y if b is None else y + b


def _cuts(node: Node, window: _Window) -> Pads:
    """What is cut off the full picture at each end; less than nothing, if zeros are added."""
    wanted, auto = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    cuts = []
    for axis, (n, stride, reach) in enumerate(zip(window.spatial, window.strides, window.reach, strict=True)):
        before, after = window.pads[axis]
        extra = node.get("output_padding", [0] * len(window.kernel))[axis]
        if wanted is None and not window.auto:
            cuts.append((before, after - extra))
            continue
        if wanted is not None and n is None:
            raise node.refuse("output_shape needs a known image size: fix that axis")
        cut = reach - stride if wanted is None else stride * ((n or 0) - 1) + reach - wanted[axis]
        half = max(cut + extra, 0) // 2
        before = half if auto == "SAME_UPPER" else max(cut + extra, 0) - half
        cuts.append((before, cut - before))
    return cuts


def _cut(y: Any, cuts: Pads) -> Any:
    """Y [N, spatial…, C] without what is cut off, and with the zeros that are added at the end."""
    added = [(0, max(-after, 0)) for _, after in cuts]
    y = tf.pad(y, _around(added)) if any(map(any, added)) else y
    inner = [slice(before, -after if after > 0 else None) for before, after in cuts]
    return y[(slice(None), *inner)]


def _max_pool(node: Node, x: Any) -> Any:
    """The largest number under each window; padding never wins."""
    if len(node.wanted) > 1 and node.wanted[1]:
        raise node.refuse("it also gives indices: TensorFlow counts them in another way")
    window = _Window(node, x, node.get("kernel_shape"))
    extra, padding = window.extra(), window.padding()
    if padding is None or any(extra):
        lowest = x.dtype.min if x.dtype.is_integer else float("-inf")
        pads = [(before, after + more) for (before, after), more in zip(window.pads, extra, strict=True)]
        x, padding = tf.pad(x, _around(pads), constant_values=tf.constant(lowest, x.dtype)), "VALID"
    return _pool(window, x, "MAX", padding)


def _pool(window: _Window, x: Any, kind: str, padding: str) -> Any:
    """TensorFlow's pooling; strides that it does not do together with dilations are taken afterwards."""
    strides, n = window.strides, len(window.kernel)
    wide = any(stride > k for stride, k in zip(strides, window.kernel, strict=True))
    if padding == "VALID" and (wide or max(window.dilations) > 1 < max(strides)):
        y = tf.nn.pool(x, window.kernel, kind, [1] * n, padding, dilations=window.dilations)
        return y[(slice(None), *(slice(None, None, stride) for stride in strides))]
    return tf.nn.pool(x, window.kernel, kind, strides, padding, dilations=window.dilations)


def _average_pool(node: Node, x: Any) -> Any:
    """The mean under each window; padding counts as zeros only if `count_include_pad`.

    The mean of x padded with zeros, over the mean of ones padded with what does not count.
    """
    window = _Window(node, x, node.get("kernel_shape"))
    extra, padding = window.extra(), window.padding()
    counted = bool(node.get("count_include_pad", 0))

    if padding == "VALID" and not any(extra):
        return _pool(window, x, "AVG", "VALID")
    if padding == "SAME" and not any(extra) and not counted and max(window.dilations) == 1:
        return _pool(window, x, "AVG", "SAME")
    if padding == "SAME" and window.auto:
        window.pads = [window.same(axis) for axis in range(len(window.kernel))]
    more = [(0, each) for each in extra]
    ones = tf.ones([1, *sizes(x)[1:-1], 1], x.dtype)
    ones = tf.pad(ones, _around(window.pads), constant_values=tf.constant(float(counted), x.dtype))
    share = _pool(window, tf.pad(ones, _around(more)), "AVG", "VALID")
    x = tf.pad(tf.pad(x, _around(window.pads)), _around(more))
    return _pool(window, x, "AVG", "VALID") / share


def _global(reduce: Any) -> Operator:
    """One number per channel; the spatial axes stay, with size 1."""
    return Operator(lambda node, x: reduce(tensor(x), list(range(1, rank(x) - 1)), keepdims=True), "last")


OPERATORS: dict[str, Operator] = {
    "Conv": Operator(_conv, "last"),
    "ConvTranspose": Operator(_conv_transpose, "last"),
    "MaxPool": Operator(_max_pool, "last"),
    "AveragePool": Operator(_average_pool, "last"),
    "GlobalAveragePool": _global(tf.reduce_mean),
    "GlobalMaxPool": _global(tf.reduce_max),
}
