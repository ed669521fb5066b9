"""What only moves numbers: Transpose, Concat, Split, Slice, Gather, Pad. The channels keep their numbers on the way.

Where a node is told in figures what to move (the sizes of a Split, the bounds of a Slice, the indices of a Gather),
the figures change with the cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from labkit.prune.coupling.axis import Axes, Axis
from labkit.prune.coupling.reading import Kept, Reading, Unruled, Write, concerned, left
from labkit.variant import Array


def transpose(reading: Reading) -> list[Axes]:
    """The axes in another order; those of a constant are still known as its own."""
    x = reading.input(0)
    order = reading.attribute("perm", list(range(len(x)))[::-1])
    return [tuple(x[axis] for axis in order)]


def squeeze(reading: Reading) -> list[Axes]:
    """Axes of one index go."""
    x = reading.input(0)
    axes = _axes(reading, 1, len(x), [place for place, axis in enumerate(x) if axis.size == 1])
    return [tuple(axis for place, axis in enumerate(x) if place not in axes)]


def unsqueeze(reading: Reading) -> list[Axes]:
    """Axes of one index come."""
    x = list(reading.input(0))
    for place in sorted(_axes(reading, 1, len(reading.sizes(reading.node.output[0])), [])):
        x.insert(place, Axis(1, why="it has one index"))
    return [tuple(x)]


def _axes(reading: Reading, position: int, rank: int, default: Sequence[int]) -> list[int]:
    """Axes that a node is given as an input (an attribute, in old opsets), counted from the front."""
    given = reading.constant(position)
    if given is None and reading.has(position):
        raise Unruled(f"{reading.title()} computes its axes")
    axes = reading.attribute("axes", default) if given is None else given.reshape(-1)
    return [int(axis) % rank for axis in axes]


def concat(reading: Reading) -> list[Axes]:
    """One after the other: the numbers too. An input that stays whole does not keep the others."""
    inputs = [reading.axes(name) for name in reading.node.input]
    place = reading.attribute("axis") % len(inputs[0])
    ledger, joined, result = reading.ledger, [], list(inputs[0])
    for axes in inputs:
        for position, axis in enumerate(axes):
            if position != place and axis.size > 1:
                ledger.tie(result[position], axis)
                result[position] = axis if axis.numbers is None else result[position]
        here = axes[place]
        numbers = ledger.fresh(here.size) if here.numbers is None else here.numbers
        if here.numbers is None:
            ledger.keep(Axis(here.size, numbers), here.why)
        joined.append(numbers)
    if all(axes[place].numbers is None for axes in inputs):
        size = sum(axes[place].size for axes in inputs)
        result[place] = Axis(size, why=inputs[0][place].why)
    else:
        numbers = np.concatenate(joined)
        result[place] = Axis(len(numbers), numbers)
    return [tuple(Axis(axis.size, axis.numbers, axis.why, parts=axis.parts) for axis in result)]


def split(reading: Reading) -> list[Axes]:
    """Cut into pieces, each with its piece of the numbers."""
    x, names = reading.input(0), list(reading.node.output)
    place = reading.attribute("axis", 0) % len(x)
    sizes = [reading.sizes(name)[place] for name in names]
    numbers, pieces, start = x[place].numbers, [], 0
    for size in sizes:
        part = None if numbers is None else reading.ledger.take(numbers[start : start + size])
        pieces.append(Axis(size, part, x[place].why, parts=x[place].parts))
        start += size

    def other_sizes(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        if concerned(pieces, kept):
            stay = np.array([left(piece, kept) for piece in pieces], np.int64)
            kept_attributes = [each for each in node.attribute if each.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept_attributes)
            node.input[:] = [node.input[0], write(stay)]

    reading.widths[reading.index] = tuple(pieces)
    reading.when_cut(other_sizes)
    return [(*x[:place], piece, *x[place + 1 :]) for piece in pieces]


def slice_(reading: Reading) -> list[Axes]:
    """From `start` to `end`: of an axis that may shrink, the same channels as far as they are still there."""
    x = reading.input(0)
    bounds = [reading.constant(position) for position in (1, 2)]
    if any(bound is None for bound in bounds):
        raise Unruled(f"{reading.title()} computes its bounds")
    starts, ends = (np.asarray(bound).reshape(-1).copy() for bound in bounds)
    axes = _axes(reading, 3, len(x), list(range(len(starts))))
    given_steps = reading.constant(4)
    steps = np.ones_like(starts) if given_steps is None else given_steps.reshape(-1)
    result, sizes = list(x), reading.sizes(reading.node.output[0])
    ranges: dict[int, tuple[Axis, int, int]] = {}
    for entry, place in enumerate(axes):
        axis, why = x[place], f"{reading.title()} takes some of them at a stride"
        if axis.numbers is not None and steps[entry] == 1:
            first, last, _ = slice(int(starts[entry]), int(ends[entry])).indices(axis.size)
            ranges[entry] = (axis, first, last)
            taken = reading.ledger.take(axis.numbers[first:last])
            result[place] = Axis(sizes[place], taken, source=axis.source, parts=axis.parts)
        elif sizes[place] != axis.size:
            reading.ledger.keep(axis, why)
            result[place] = Axis(sizes[place], why=axis.why or why, parts=axis.parts)

    def other_bounds(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        if not concerned([axis for axis, _, _ in ranges.values()], kept):
            return
        for entry, (axis, first, last) in ranges.items():
            assert axis.numbers is not None  # noqa: S101 - only such axes are in `ranges`
            stay = kept(axis.numbers)
            starts[entry], ends[entry] = stay[:first].sum(), stay[:last].sum()
        node.input[1], node.input[2] = write(starts.copy()), write(ends.copy())

    reading.widths[reading.index] = tuple(result[axes[entry]] for entry in ranges)
    reading.when_cut(other_bounds)
    return [tuple(result)]


def gather(reading: Reading) -> list[Axes]:
    """Rows of a table, or channels in another order; what is looked up by computed indices stays whole."""
    x, indices = reading.input(0), reading.constant(1)
    place = reading.attribute("axis", 0) % len(x)
    picked: Axes = reading.whole(reading.node.output[0], "it is looked up")[
        place : place + len(reading.input(1))
    ]
    numbers = x[place].numbers
    if numbers is not None and indices is not None and indices.ndim == 1 and reading.is_computed(0):
        order = np.asarray(indices, np.int64) % x[place].size
        picked = (Axis(len(order), reading.ledger.take(numbers[order])),)
        _reorder(reading, x[place], order)
    else:
        reading.ledger.keep(x[place], f"{reading.title()} looks up single ones of them")
    for axis in x[place + 1 :]:
        reading.makes(axis)  # an embedding makes its channels here
    others = [Axis(axis.size, axis.numbers, axis.why, parts=axis.parts) for axis in x]
    return [(*others[:place], *picked, *others[place + 1 :])]


def gather_rows(reading: Reading) -> list[Axes]:
    """GatherND: looked up by the first k axes at once; the axes behind them stay what they are."""
    x, indices = reading.input(0), [axis.size for axis in reading.input(1)]
    if reading.attribute("batch_dims", 0):
        raise Unruled(f"{reading.title()} looks up in each sample by itself")
    first, picked = indices[-1], reading.whole(reading.node.output[0], "it is looked up")[: len(indices) - 1]
    reading.ledger.keep_all(x[:first], f"{reading.title()} looks up single ones of them")
    for axis in x[first:]:
        reading.makes(axis)
    return [(*picked, *(Axis(axis.size, axis.numbers, axis.why, parts=axis.parts) for axis in x[first:]))]


def _reorder(reading: Reading, axis: Axis, order: Array) -> None:
    numbers = axis.numbers
    assert numbers is not None  # noqa: S101 - the caller has looked

    def other_indices(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        stay = kept(numbers)
        if not stay.all():
            node.input[1] = write((np.cumsum(stay) - 1)[order[stay[order]]].astype(np.int64))

    reading.when_cut(other_indices)


def pad(reading: Reading) -> list[Axes]:
    """More at the ends: channels of zeros, as some shortcuts have, are channels with nothing that makes them."""
    x, pads = reading.input(0), reading.constant(1)
    if pads is None:
        raise Unruled(f"{reading.title()} computes how much it adds")
    axes = _axes(reading, 3, len(x), list(range(len(x))))
    amounts = np.asarray(pads).reshape(2, -1).copy()
    result, sizes = list(x), reading.sizes(reading.node.output[0])
    padded: dict[int, Axis] = {}
    for entry, place in enumerate(axes):
        axis, (before, after) = x[place], amounts[:, entry]
        if axis.numbers is None:
            result[place] = Axis(sizes[place], why=axis.why, parts=axis.parts)
        elif before or after:
            if before < 0 or after < 0 or not _pads_zeros(reading):
                raise Unruled(f"{reading.title()} adds channels that are not zero")
            ledger = reading.ledger
            padded[entry] = Axis(
                sizes[place], np.concatenate([ledger.fresh(before), axis.numbers, ledger.fresh(after)])
            )
            result[place] = padded[entry]

    def other_amounts(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        if concerned(list(padded.values()), kept):
            changed = amounts.copy()
            for entry, axis in padded.items():
                assert axis.numbers is not None  # noqa: S101 - made so above
                before, after = amounts[:, entry]
                changed[0, entry] = kept(axis.numbers[:before]).sum()
                changed[1, entry] = kept(axis.numbers[axis.size - after :]).sum()
            node.input[1] = write(changed.reshape(-1))

    reading.when_cut(other_amounts)
    return [tuple(result)]


def _pads_zeros(reading: Reading) -> bool:
    value = reading.constant(2)
    given = reading.has(2)
    return reading.attribute("mode", "constant") == "constant" and (
        not given or (value is not None and not value.any())
    )
