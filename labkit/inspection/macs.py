"""Multiply-adds of one sample, from the shapes that a file tells: the rule of `onnx_graph/macs.py` for the rest.

Each number that a layer puts out is a sum; how many products it sums over is the weight's, or the other
factor's, affair: the kernel and the channels of a convolution, the inner size of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labkit.inspection.record import Layer, Shape, TensorInfo


@dataclass(frozen=True)
class Sample:
    """How open dimensions are bound so that one sample goes in: by name, and how many samples a fixed batch holds."""

    sizes: Mapping[str, int]
    samples: int

    @classmethod
    def of(cls, inputs: Sequence[TensorInfo], sizes: Mapping[str, int]) -> Sample:
        """The first dimension of every input is the batch: one, unless the file fixes it."""
        first = [info.shape[0] for info in inputs if info.shape]
        fixed = next((size for size in first if isinstance(size, int)), 1)
        return cls({**sizes, **{size: 1 for size in first if isinstance(size, str)}}, max(fixed, 1))

    def shape(self, shape: Shape) -> Shape:
        """A shape with what is known filled in; an unnamed first dimension is the batch too."""
        return tuple(
            self.sizes.get(size, size) if isinstance(size, str) else 1 if size is None and axis == 0 else size
            for axis, size in enumerate(shape)
        )

    def macs(self, output: Shape | None, summed: Shape | None) -> int | None:
        """Multiply-adds where each number of `output` sums over `summed`; None if a size stays open."""
        if output is None or summed is None:
            return None
        known = [size for size in (*self.shape(output), *self.shape((1, *summed))) if isinstance(size, int)]
        if len(known) < len(output) + len(summed) + 1:
            return None
        return math.prod(known) // self.samples


def total_macs(layers: Iterable[Layer]) -> int | None:
    """The sum over all layers, None if one of them does not tell."""
    macs = [layer.macs for layer in layers]
    return None if not macs or None in macs else sum(each for each in macs if each is not None)


def untold(layers: Iterable[Layer], reason: str = "") -> tuple[str, ...]:
    """The note beside a missing total, or none."""
    first = next((layer for layer in layers if layer.macs is None), None)
    if first is None:
        return ()
    words = reason or f"those of {first.operator} {first.name!r} are not counted, or its shapes stay open"
    return (f"the multiply-adds are not all told: {words}",)
