"""A group: units that are alike, where each of them stands in the initializers, and which of them may not all go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from labkit.prune.coupling.axis import Numbers
from labkit.variant import Array


@dataclass(frozen=True)
class Member:
    """Where a group stands in one initializer.

    `indices`: [U, k], the k indices of the axis that leave with each of the group's U units. `role`: "makes" the
    channels, "scales" them (a batch norm's γ), "shifts" them (a bias), "reads" them, or "" for all else. `normed`: a
    batch norm behind it decides what becomes of what it makes.
    """

    tensor: str
    axis: int
    role: str
    indices: Array
    normed: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """U units that are alike, so that one may be weighed against the other: channels of a layer, heads of an attention.

    `name` is the weight that makes them first, and which part of it if it makes several groups; `units` are their
    numbers in the `Coupling`: [U]. `residual` tells that they are of a stream to which several layers add. `pieces`
    are the places in `units` of those that a Split or a Slice takes by themselves: of each piece one unit stays.
    `unweighted` are the places of those that something reads without a stored weight.
    """

    name: str
    units: Numbers
    members: tuple[Member, ...]
    residual: bool
    pieces: tuple[Numbers, ...] = ()
    unweighted: Numbers = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.units)

    @property
    def fewest(self) -> int:
        """How many units stay at least."""
        return max(1, len(self.pieces))

    def spared(self, places: Numbers) -> Numbers:
        """`places` in `units` of those that are to go, without the last one of every piece that would go altogether."""
        pieces = self.pieces or (np.arange(len(self)),)
        last = [places[np.isin(places, piece)][-1] for piece in pieces if np.isin(piece, places).all()]
        return places[~np.isin(places, last)]

    @property
    def width(self) -> int:
        """How many channels a unit has where it is made: 1, or those of a head."""
        return int(self.of_role("makes")[0].indices.shape[1])

    def half(self) -> Numbers:
        """Half of the units, as far as they may go: for a trial. Where there are pieces, they lose unequally many."""
        is_cut = any(len(piece) < len(self) for piece in self.pieces)
        return self.units[self.spared(np.arange(len(self) // 2) if is_cut else np.arange(0, len(self), 2))]

    def of_role(self, role: str) -> tuple[Member, ...]:
        """The members of one role."""
        return tuple(member for member in self.members if member.role == role)
