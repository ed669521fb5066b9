"""How large to make what is free where a model is only tried: two samples are enough, two pixels are not.

A convolution with a stride and a pool behind it make less than nothing of an image of 2 × 2, and some engines end the
whole process there. So the free places of an image or a signal are many. Samples are few, and so are the steps of a
sequence, which may be as short as one likes and not always as long.
"""

from __future__ import annotations

from collections.abc import Sequence

PLACES = 32
_SIGNAL = 3
"""The axes of a signal: samples, channels, places. An image has more, a sequence of vectors has its places before."""

Size = int | str | None


def trial_shapes(shapes: Sequence[Sequence[Size]], samples: int, places: int = PLACES) -> list[list[int]]:
    """The inputs' shapes with a figure for each dimension that is free: a name, or None if it has no name.

    `places` for the axes of an image behind its first, and for the last of a signal; `samples` for all others. A name
    has one figure wherever it stands: [("batch", 3, "h", "w"), ("batch", 4)] → [[2, 3, 32, 32], [2, 4]] for 2 samples.
    """
    first = {size for shape in shapes for size in shape[:1] if isinstance(size, str)}
    wide = {
        size for shape in shapes for size in shape[_first_place(shape) :] if isinstance(size, str)
    } - first

    def figure(size: Size, is_place: bool) -> int:
        if isinstance(size, int):
            return size
        return places if size in wide or (size is None and is_place) else samples

    return [
        [figure(size, axis >= _first_place(shape)) for axis, size in enumerate(shape)] for shape in shapes
    ]


def _first_place(shape: Sequence[Size]) -> int:
    """The first axis along which an image or a signal extends; for anything else there is none, and it is the rank."""
    if len(shape) > _SIGNAL:
        return 1
    return _SIGNAL - 1 if len(shape) == _SIGNAL else len(shape)
