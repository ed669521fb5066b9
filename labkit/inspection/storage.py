"""How much a file stores: elements, bits, and the sums by dtype that make up `precision`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from labkit.inspection.record import Shape, Stored

REAL = ("float16", "bfloat16", "float32", "float64")
"""The dtypes of parameters that nobody has quantized."""


def count_of(shape: Shape | None) -> int:
    """Elements of a shape; sizes that stay open count as one."""
    return math.prod(size for size in shape or () if isinstance(size, int))


def bytes_of(dtype: str, count: int) -> int:
    """Bytes that `count` elements take, packed: float32 4 each, int4 half a one, bool one."""
    digits = re.search(r"\d+", dtype)
    return (count * (int(digits[0]) if digits else 8) + 7) // 8


def tally(items: Iterable[tuple[str, int, int]]) -> dict[str, Stored]:
    """(dtype, elements, bytes) of each constant → the sums by dtype."""
    found: dict[str, Stored] = {}
    for dtype, count, size in items:
        before = found.get(dtype, Stored(0, 0))
        found[dtype] = Stored(before.count + count, before.bytes + size)
    return found
