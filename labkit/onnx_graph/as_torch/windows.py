"""Operators that slide a window over an image: convolutions and pooling, in one, two or three dimensions.

torch pads both ends of an axis alike and only so far; ONNX pads each as it likes. So the padding is written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from labkit.onnx_graph.as_torch.node import Node
from labkit.onnx_graph.window import Window, window

_CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
_CONV_TRANSPOSE = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
_MAX_POOL = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE_POOL = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Images [N, C, …] and weight [O, C/groups, …] → [N, O, …]."""
    strides, dilations, pads = _window(node, x, list(weight.shape[2:]))
    axes = weight.ndim - 2
    function = _of(_CONV, axes, node)
    if pads[:axes] == pads[axes:]:  # alike at both ends: torch's convolution pads by itself, without a copy
        padding: Any = pads[:axes]
    else:
        x, padding = _padded(x, pads, 0.0), 0
    result: Tensor = function(x, weight, bias, strides, padding, dilations, node.get("group", 1))
    return result


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Images [N, C, …] and weight [C, O/groups, …] → [N, O, …]; `pads` are cut off the result."""
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or node.get("output_shape"):
        raise node.refuse("its padding follows from the output's shape: export it with `pads`")
    axes = weight.ndim - 2
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    pads, extra = node.get("pads", [0] * 2 * axes), node.get("output_padding", [0] * axes)
    function = _of(_CONV_TRANSPOSE, axes, node)
    result: Tensor = function(x, weight, bias, strides, 0, extra, node.get("group", 1), dilations)
    for axis in range(axes):
        result = result.narrow(axis + 2, pads[axis], result.shape[axis + 2] - pads[axis] - pads[axis + axes])
    return result


def max_pool(node: Node, x: Tensor) -> Tensor:
    """The largest number in each window; padding never wins."""
    if len(node.outputs) > 1:
        raise node.refuse("its places of the largest values are used")
    kernel = node.get("kernel_shape")
    strides, dilations, pads = _window(node, x, kernel)
    function = _of(_MAX_POOL, len(kernel), node)
    ceil = bool(node.get("ceil_mode", 0))
    result: Tensor = function(_padded(x, pads, -torch.inf), kernel, strides, 0, dilations, ceil)
    return _begun(result, x, strides, pads)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """The mean of each window; padding counts only if `count_include_pad` says so."""
    kernel = node.get("kernel_shape")
    strides, dilations, pads = _window(node, x, kernel)
    if any(each != 1 for each in dilations):
        raise node.refuse("its window has gaps")
    function = _of(_AVERAGE_POOL, len(kernel), node)
    ceil = bool(node.get("ceil_mode", 0))
    result: Tensor = function(_padded(x, pads, 0.0), kernel, strides, 0, ceil)
    result = _begun(result, x, strides, pads)
    if node.get("count_include_pad", 0) or not any(pads):
        return result
    inside: Tensor = function(_padded(torch.ones_like(x[:1, :1]), pads, 0.0), kernel, strides, 0, ceil)
    return result / _begun(inside, x, strides, pads)


def _begun(pooled: Tensor, x: Tensor, strides: list[int], pads: list[int]) -> Tensor:
    """Without the places whose window begins in the padding at the end of x: rounding up counts none of these."""
    for axis, stride in enumerate(strides, 2):
        places = -(-(pads[axis - 2] + x.shape[axis]) // stride)
        pooled = pooled.narrow(axis, 0, min(places, pooled.shape[axis]))
    return pooled


def _of(family: tuple[Callable[..., Any], ...], axes: int, node: Node) -> Callable[..., Any]:
    """The function for so many axes beside batch and channels."""
    if not 1 <= axes <= len(family):
        raise node.refuse(f"it slides along {axes} axes, and torch along 1 to 3")
    return family[axes - 1]


def _window(node: Node, x: Tensor, kernel: list[int]) -> Window:
    return window(node.get, x.shape[2:], kernel)


def _padded(x: Tensor, pads: list[int], value: float) -> Tensor:
    """X with its last axes made longer; torch counts them from the last to the first, in pairs."""
    if not any(pads):
        return x
    axes = len(pads) // 2
    pairs = [pads[axis + side * axes] for axis in reversed(range(axes)) for side in (0, 1)]
    return functional.pad(x, pairs, value=value)
