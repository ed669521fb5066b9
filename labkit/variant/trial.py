"""How large to make what is free where a model is only tried: two samples are enough, two pixels are not.

A convolution with a stride and a pool behind it make less than nothing of an image of 2 × 2, and some engines end the
whole process there. So the free places of an image or a signal are many, and only what counts samples is few.
"""

from __future__ import annotations

from collections.abc import Sequence

PLACES = 32
_IMAGE_LIKE = 3
"""The fewest axes of an image, a signal or a sequence of vectors: samples, places, channels."""


def trial_shapes(
    shapes: Sequence[Sequence[int | str | None]], samples: int, places: int = PLACES
) -> list[list[int]]:
    """The inputs' shapes with a figure for each dimension that is free: a name, or None if it has no name.

    `places` for the axes of an input of three or more that are not its first, `samples` for all others. A name has one
    figure wherever it stands: [("batch", 3, "h", "w"), ("batch", 4)] → [[2, 3, 32, 32], [2, 4]] for 2 samples.
    """
    first = {size for shape in shapes for size in shape[:1] if isinstance(size, str)}
    behind = {size for shape in shapes if len(shape) >= _IMAGE_LIKE for size in shape[1:]}
    wide = {size for size in behind if isinstance(size, str)} - first

    def figure(size: int | str | None, place: int, rank: int) -> int:
        if isinstance(size, int):
            return size
        is_place = size in wide or (size is None and place > 0 and rank >= _IMAGE_LIKE)
        return places if is_place else samples

    return [[figure(size, place, len(shape)) for place, size in enumerate(shape)] for shape in shapes]
