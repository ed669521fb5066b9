"""How an operator's window moves over an image: the same attributes for convolutions and for pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from labkit.errors import TechniqueError


class Window(NamedTuple):
    """Strides and dilations, one for each axis of the image; pads: [begin of each axis, end of each axis]."""

    strides: list[int]
    dilations: list[int]
    pads: list[int]


def window(get: Callable[[str, Any], Any], size: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of an operator on an image of `size`, its `auto_pad` worked out.

    get(name, default): the value of an attribute, a text as `str`. SAME_UPPER and SAME_LOWER pad so that the output
    has ⌈size / stride⌉ places; where that takes an odd number, the one more comes at the upper or the lower end.
    Raises TechniqueError for an `auto_pad` that ONNX does not know.
    """
    ones, zeros = [1] * len(kernel), [0] * 2 * len(kernel)
    strides, dilations = list(get("strides", ones)), list(get("dilations", ones))
    automatic = get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", "VALID"):
        return Window(strides, dilations, list(get("pads", zeros)) if automatic == "NOTSET" else zeros)
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        raise TechniqueError(f"auto_pad={automatic!r} is unknown: NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    totals = [
        max(0, (-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n)
        for n, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True)
    ]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return Window(strides, dilations, less + more if automatic == "SAME_UPPER" else more + less)
