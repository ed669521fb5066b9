"""What leaves the channels where they are: activation functions, sums and products of tensors, pooling, means."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.prune.coupling.axis import Axes, Axis
from labkit.prune.coupling.reading import Reading, Unruled

_BLIND_TO_ZEROS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def elementwise(reading: Reading) -> list[Axes]:
    """The result of any function of one number from each input."""
    given = [place for place in range(len(reading.node.input)) if reading.has(place)]
    inputs = [reading.input(place) for place in given]
    result = broadcast(reading, inputs)
    if reading.node.op_type in ("Add", "Sub", "Sum"):
        for axis in (axis for axes in inputs for axis in axes):
            reading.ledger.play("shifts", axis)
        if sum(reading.is_computed(place) for place in given) > 1:
            reading.ledger.added += [axis.numbers for axis in result if axis.numbers is not None]
    return [result]


def passed_on(reading: Reading) -> list[Axes]:
    """Identity, Cast, Dropout: the first input as it is; a constant stays known as one."""
    return [reading.input(0)] * len(reading.node.output)


def broadcast(reading: Reading, inputs: Sequence[Axes]) -> Axes:
    """The axes of what comes out when tensors of these axes meet; an axis of one index is repeated."""
    rank = max((len(axes) for axes in inputs), default=0)
    result = []
    for place in range(-rank, 0):
        met = [axes[place] for axes in inputs if len(axes) >= -place]
        long = [axis for axis in met if axis.size > 1] or met
        for other in long[1:]:
            reading.ledger.tie(long[0], other)
        named = next((axis for axis in long if axis.numbers is None), long[0])
        parts = frozenset().union(*(axis.parts for axis in long))
        result.append(Axis(named.size, named.numbers, named.why, parts=parts))
    return tuple(result)


def per_channel(reading: Reading) -> list[Axes]:
    """Pooling: each channel of each sample by itself; the image shrinks."""
    x = reading.input(0)
    return [
        (*x[:2], *reading.whole(name, "it is a place in an image")[2:])
        for name in reading.node.output
        if name
    ]


def reduction(reading: Reading) -> list[Axes]:
    """A sum or a norm over channels may lack some that are zero; a mean or a largest of them would be another.

    That holds for what is computed from the model's inputs. What is computed from weights alone, as the norm that
    a weight is divided by, would be another: a weight that reads nothing need not be zero.
    """
    x = reading.input(0)
    given = reading.constant(1)
    if given is None and reading.has(1):
        raise Unruled(f"{reading.title()} computes its axes")
    listed = reading.attribute("axes", []) if given is None else given.reshape(-1)
    axes = {int(axis) % len(x) for axis in listed}
    if not axes and not reading.attribute("noop_with_empty_axes", 0):
        axes = set(range(len(x)))
    if reading.node.op_type not in _BLIND_TO_ZEROS or not reading.varies(0):
        reading.ledger.keep_all((x[axis] for axis in axes), f"{reading.title()} is taken over all of them")
    for axis in axes:
        reading.reads(x[axis])
    keeps = reading.attribute("keepdims", 1)
    one = Axis(1, why="it has one index")
    return [
        tuple(one if place in axes else axis for place, axis in enumerate(x) if keeps or place not in axes)
    ]


def sizes_of(reading: Reading) -> list[Axes]:
    """Shape: whatever is cut, it tells the new sizes by itself."""
    return [reading.whole(reading.node.output[0], "it holds sizes")]
