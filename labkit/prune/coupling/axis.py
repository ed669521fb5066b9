"""What hangs together, written down as a graph is read: every index of every axis has a number, and numbers are tied.

A weight [64, 32, 3, 3] has 64 numbers for its outputs and 32 for its inputs; a convolution ties each of the 32 to
one number of the tensor that it reads, and hands its 64 on as the channels of its result. Whatever ends up tied,
directly or over others, leaves together or not at all. Some numbers must stay, and there the reason is written down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Place = tuple[str, int]
"""An initializer and one of its axes."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a tensor.

    `numbers`: [size], one for each index; None if the axis stays whole, and then `why` says why. `source` is the
    place in an initializer whose indices these are. `parts` are the (Reshape, output axis) that cut it out of a
    longer axis: there was a choice which of several axes may shrink. `repeated`: all of its indices hold the same.
    """

    size: int
    numbers: Numbers | None = None
    why: str = ""
    source: Place | None = None
    parts: frozenset[tuple[int, int]] = frozenset()
    repeated: bool = False


Axes = tuple[Axis, ...]


@dataclass
class Ledger:
    """All numbers given out so far, and what was found out about them."""

    count: int = 0
    places: dict[Place, Numbers] = field(default_factory=dict)
    roles: dict[Place, set[str]] = field(default_factory=lambda: defaultdict(set))
    """What a place does with the channels: "makes", "scales", "shifts" or "reads" them."""
    reasons: list[tuple[Numbers, str]] = field(default_factory=list)
    reparametrized: list[tuple[str, Numbers]] = field(default_factory=list)
    """Layers whose weight is computed from others while the model runs, and the numbers of what they make."""
    added: list[Numbers] = field(default_factory=list)
    """Numbers of sums of two computed tensors: residual streams."""
    unnormed: set[Place] = field(default_factory=set)
    """Places that make channels which meet something else than a batch norm first."""
    unweighted: list[Numbers] = field(default_factory=list)
    """Numbers of channels that are summed up, or multiplied with others and then summed, without a stored weight."""
    pieces: list[Numbers] = field(default_factory=list)
    """Numbers of what a Split, a Slice or a Gather takes out of a longer axis: no engine takes a tensor of nothing."""
    wanted: set[tuple[int, int]] = field(default_factory=set)
    unwanted: set[tuple[int, int]] = field(default_factory=set)
    """Parts that are independent of each other (the heads of an attention), and parts that must stay whole."""
    _ties: list[tuple[Numbers, Numbers]] = field(default_factory=list)

    def fresh(self, size: int) -> Numbers:
        """Numbers [size] that nobody has yet."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def constant(self, name: str, shape: Sequence[int]) -> Axes:
        """The axes of an initializer, with numbers of their own."""
        axes = []
        for position, size in enumerate(shape):
            numbers = self.fresh(size) if size > 1 else None
            if numbers is not None:
                self.places[name, position] = numbers
            axes.append(Axis(size, numbers, f"{name!r} has one index there", (name, position)))
        return tuple(axes)

    def tie(self, first: Axis, second: Axis) -> None:
        """What leaves one axis leaves the other at the same index; nothing does if one of them stays whole."""
        if first.numbers is None:
            self.keep(second, first.why)
        elif second.numbers is None:
            self.keep(first, second.why)
        else:
            self.tie_numbers(first.numbers, second.numbers)

    def tie_numbers(self, first: Numbers, second: Numbers) -> None:
        """Tie two arrays of numbers, entry by entry, one broadcast to the other."""
        pair = np.broadcast_arrays(first, second)
        self._ties.append((pair[0].ravel(), pair[1].ravel()))

    def keep(self, axis: Axis, why: str) -> None:
        """No index of the axis may go."""
        if len(axis.parts) == 1:  # of several that were put together, one of them may be what must stay
            self.unwanted |= axis.parts
        if axis.numbers is not None:
            self.reasons.append((axis.numbers, why))

    def keep_all(self, axes: Iterable[Axis], why: str) -> None:
        """No index of any of the axes may go."""
        for axis in axes:
            self.keep(axis, why)

    def take(self, piece: Numbers) -> Numbers:
        """Note that these numbers are taken out of a longer axis: one at least of them stays."""
        self.pieces.append(piece)
        return piece

    def play(self, role: str, axis: Axis) -> None:
        """Note what the initializer behind an axis does with its channels."""
        if axis.source is not None:
            self.roles[axis.source].add(role)

    def units(self) -> Numbers:
        """For each number the least number that it is tied to, over however many others: [count]."""
        least = np.arange(self.count, dtype=np.int64)
        if not self._ties:
            return least
        first, second = (np.concatenate(side) for side in zip(*self._ties, strict=True))
        while True:
            before = least.copy()
            lower = np.minimum(least[first], least[second])
            np.minimum.at(least, first, lower)
            np.minimum.at(least, second, lower)
            np.minimum.at(least, before, least)  # what was least so far follows its followers
            least = least[least]
            if np.array_equal(before, least):
                return least
