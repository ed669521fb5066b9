"""Reshape and its like: which axis of the new shape the channels are, and the new shape once some are gone.

A shape of [N, C, H, W] is read in blocks that hold the same numbers before and after: N → N, and C·H·W → F if the
image is flattened. In a block that is put together every channel is found again H·W times. In one that is cut, as
[N, T, 96] → [N, T, 4, 24], only one of the new axes can shrink and stay rectangular: either a whole head goes, or
the same place from every head. Heads go where they turn out to be independent of each other (`Ledger.wanted`),
otherwise what leaves the most to choose from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper

from labkit.prune.coupling.axis import Axes, Axis, Numbers
from labkit.prune.coupling.reading import Kept, Reading, Unruled, Write, concerned, left

_RESIZES_SOME = 18
"""The first opset whose Resize can be given the sizes of some axes alone."""


def reshape(reading: Reading) -> list[Axes]:
    """Reshape and Flatten: the same numbers in the same order under another shape."""
    x, sizes = reading.input(0), reading.sizes(reading.node.output[0])
    result = {place: Axis(1, why="it has one index") for place, size in enumerate(sizes) if size == 1}
    for sources, places in _blocks(x, sizes):
        result.update(zip(places, _regroup(reading, sources, places, sizes), strict=True))
    axes = tuple(result[place] for place in range(len(sizes)))
    return [_with_shape(reading, axes) if reading.node.op_type == "Reshape" else axes]


def expand(reading: Reading) -> list[Axes]:
    """Axes of one index are repeated, as often as what they meet then has indices; the others stay what they are."""
    x, sizes = reading.input(0), reading.sizes(reading.node.output[0])
    free = reading.free(reading.node.output[0])
    result = []
    for place, size in enumerate(sizes, len(x) - len(sizes)):
        if place >= 0 and x[place].size > 1:
            result.append(Axis(size, x[place].numbers, x[place].why, parts=x[place].parts))
        elif size == 1 or place + len(sizes) - len(x) in free:
            result.append(Axis(size, why="it is repeated"))
        else:
            result.append(Axis(size, reading.ledger.fresh(size), repeated=True))
    return [_with_shape(reading, tuple(result))]


def resize(reading: Reading) -> list[Axes]:
    """The image grows or shrinks; the channels stay what they are."""
    x, sizes = reading.input(0), reading.sizes(reading.node.output[0])
    result = []
    for axis, size in zip(x, sizes, strict=True):
        if axis.size != size:
            reading.ledger.keep(axis, f"{reading.title()} mixes them")
        result.append(axis if axis.size == size else Axis(size, why="it is a place in an image"))
    axes = tuple(result)
    told = [place % len(x) for place in reading.attribute("axes", range(len(x)))]
    is_told = any(axes[place].numbers is not None for place in told)
    return [_with_image(reading, x, axes) if reading.has(3) and is_told else axes]


def _with_image(reading: Reading, x: Axes, axes: Axes) -> Axes:
    """The axes of a Resize that is told how long to make channels; where it computes that, it is told of the image."""
    changed = [place for place, axis in enumerate(axes) if axis.size != x[place].size] or [len(axes) - 1]
    opset = next(each.version for each in reading.graph.model.opset_import if each.domain in ("", "ai.onnx"))
    is_fixed = not set(changed) & set(reading.free(reading.node.output[0]))
    if reading.attribute("axes", []) and not is_fixed:
        reading.ledger.keep_all(axes, f"the graph computes the shape that {reading.title()} makes")
        return axes
    is_whole = reading.constant(3) is not None and not reading.attribute("axes", [])
    if is_whole or opset < _RESIZES_SOME or not is_fixed:
        return _with_shape(reading, axes, position=3)

    def image_alone(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        if concerned(axes, kept):
            node.input[3] = write(np.array([axes[place].size for place in changed], np.int64))
            others = [each for each in node.attribute if each.name != "axes"]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute("axes", changed)])

    reading.when_cut(image_alone)
    return axes


def depth_to_space(reading: Reading) -> list[Axes]:
    """DepthToSpace (a pixel shuffle): b² channels become the b × b places of one, and leave together."""
    x, block = reading.input(0), reading.attribute("blocksize") ** 2
    in_a_row = reading.attribute("mode", "DCR") == "CRD"
    channels = x[1].numbers
    if channels is not None:
        rows = channels.reshape(-1, block) if in_a_row else channels.reshape(block, -1).T
        reading.ledger.tie_numbers(rows[:, :1], rows)
        channels = rows[:, 0]
    return [_with_places(reading, channels)]


def space_to_depth(reading: Reading) -> list[Axes]:
    """SpaceToDepth: each channel is found again b² times, once for each place of a block."""
    numbers = reading.input(0)[1].numbers
    return [
        _with_places(
            reading, None if numbers is None else np.tile(numbers, reading.attribute("blocksize") ** 2)
        )
    ]


def _with_places(reading: Reading, channels: Numbers | None) -> Axes:
    """The axes [N, C, H, W] of what the node makes, with these numbers for C."""
    x, image = reading.input(0), reading.whole(reading.node.output[0], "it is a place in an image")
    return (x[0], Axis(image[1].size, channels, x[1].why), *image[2:])


def _blocks(x: Axes, sizes: Sequence[int]) -> Iterator[tuple[list[Axis], list[int]]]:
    """The shortest runs of axes of more than one index, before and after, that hold as many numbers: (axes, places)."""
    before = [axis for axis in x if axis.size > 1]
    after = [place for place, size in enumerate(sizes) if size > 1]
    while before or after:
        sources, places = [before.pop(0)], [after.pop(0)]
        old, new = sources[0].size, sizes[places[0]]
        while old != new:
            if old < new:
                sources.append(before.pop(0))
                old *= sources[-1].size
            else:
                places.append(after.pop(0))
                new *= sizes[places[-1]]
        yield sources, places


def _regroup(reading: Reading, sources: list[Axis], places: list[int], sizes: Sequence[int]) -> list[Axis]:
    """The new axes of one block."""
    if len(sources) == len(places) == 1:
        return sources
    numbered = [axis for axis in sources if axis.numbers is not None]
    parts = frozenset().union(*(axis.parts for axis in sources))
    lengths = [sizes[place] for place in places]
    if not numbered:
        return [Axis(length, why=sources[0].why, parts=parts) for length in lengths]
    free = max(numbered, key=lambda axis: (not axis.repeated, axis.size))
    for axis in numbered:
        if axis is not free:
            reading.ledger.keep(axis, f"{reading.title()} joins two axes, and one of them can shrink")
    numbers = _spread(free, sources).reshape(lengths)
    views = [np.moveaxis(numbers, place, 0).reshape(length, -1) for place, length in enumerate(lengths)]
    chosen = next((i for i, view in enumerate(views) if (view == view[:, :1]).all()), None)
    has_choice = chosen is None
    if chosen is None:
        chosen = _choose(reading, places, lengths)
        reading.ledger.tie_numbers(views[chosen][:, :1], views[chosen])
    why = f"{reading.title()} cuts an axis, and another part of it can shrink"
    result = []
    for index, place in enumerate(places):
        own = parts | {(reading.index, place)} if has_choice else parts
        left_over = views[index][:, 0] if index == chosen else None
        result.append(Axis(lengths[index], left_over, why, parts=own))
    return result


def _spread(free: Axis, sources: list[Axis]) -> Numbers:
    """The numbers of one axis of a block, repeated along all the others."""
    place = next(index for index, axis in enumerate(sources) if axis is free)
    assert free.numbers is not None  # noqa: S101 - it was chosen for having them
    aligned = free.numbers.reshape([-1 if index == place else 1 for index in range(len(sources))])
    return np.broadcast_to(aligned, [axis.size for axis in sources])


def _choose(reading: Reading, places: list[int], lengths: list[int]) -> int:
    """Which of the new axes is to shrink: the one that was found to be the right one, else the longest that may."""

    def rank(index: int) -> tuple[bool, bool, int]:
        part = (reading.index, places[index])
        return part in reading.wanted, part not in reading.unwanted, lengths[index]

    return max(range(len(places)), key=rank)


def _with_shape(reading: Reading, axes: Axes, position: int = 1) -> Axes:
    """Have the shape that the node is given, its input at `position`, follow the cut.

    Where the graph computes it, what is fixed is written down, and the one size that is free is left to be found: cut
    or not, or nobody could tell from the graph how large what follows is (`measure/counting.py`).
    """
    given, name = reading.constant(position), reading.node.output[0]
    free = reading.free(name)
    if given is None and not _finds_sizes(reading, free, len(axes)):
        for axis in axes:
            reading.ledger.keep(axis, f"the graph computes the shape that {reading.title()} makes")
        return axes
    if given is None:
        found = -1 if reading.node.op_type == "Reshape" else 1  # an Expand to 1 leaves an axis as it is
        wanted = [found if place in free else axis.size for place, axis in enumerate(axes)]
    else:
        wanted = [int(size) for size in given.reshape(-1)]
        if len(wanted) != len(axes):
            raise Unruled(f"{reading.title()} is given a shape of another rank")

    def other_shape(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        if given is None or concerned(axes, kept):
            shape = [
                left(axis, kept) if axis.numbers is not None and size > 0 else size
                for axis, size in zip(axes, wanted, strict=True)
            ]
            node.input[position] = write(np.array(shape, np.int64))

    reading.widths[reading.index] = axes
    reading.when_cut(other_shape)
    return axes


def _finds_sizes(reading: Reading, free: tuple[int, ...], rank: int) -> bool:
    """Whether the node needs no figures for the free axes: one a Reshape works out, those not repeated Expand keeps."""
    if reading.node.op_type == "Reshape":
        return len(free) <= 1
    offset = rank - len(reading.input(0))
    return reading.node.op_type == "Expand" and all(
        place >= offset and reading.input(0)[place - offset].size > 1 for place in free
    )
