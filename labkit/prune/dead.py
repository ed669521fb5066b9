"""Units that no longer count: nothing is left that makes them, or nothing that reads them.

Where few weights are kept, some of them lead nowhere: into a unit that no later weight reads. And a unit without
weights of its own and without a bias gives 0, whatever is shown. Both can go, and the function stays what it was.
A unit that goes may have been the only reader of one before it: so it is looked again until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.prune.coupling import Group
from labkit.prune.coupling.axis import Numbers
from labkit.prune.coupling.coupling import EVERYWHERE
from labkit.prune.importance import per_unit
from labkit.prune.structure import Differs, Structure, read_structure
from labkit.technique import Technique, knob
from labkit.variant import Array, Variant

_COUNTS = {
    "both": "something makes it, and something reads it",
    "unmade": "something makes it",
    "unread": "something reads it",
}
_OF_NOTHING = (
    "; if a function behind it makes something of nothing, as a sigmoid makes ½, remove those alone that nothing "
    "reads, what='unread'"
)


@dataclass(frozen=True)
class RemoveDeadUnits(Technique):
    """Remove the units and channels that no longer count, physically; every output stays the same.

    To be used after a pruning of weights. Raises TechniqueError where all units count.
    """

    name: ClassVar[str] = "remove_dead_units"
    title: ClassVar[str] = "Removal of units that no longer count"
    takes: ClassVar[tuple[str, ...]] = ("torch", "onnx")

    what: str = knob("both", "units that nothing makes, that nothing reads, or both", choices=tuple(_COUNTS))

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Find the dead units, and cut them."""
        progress(0.0, "reading which channels hang together")
        structure = read_structure(variant)
        dead = dead_units(structure, self.what)
        if not dead:
            raise TechniqueError(
                f"every unit of {variant.name!r} counts: {_COUNTS[self.what]}. Prune more of its weights first"
            )
        try:
            narrow = structure.narrow(dead, exactly=True)
        except Differs as error:
            raise TechniqueError(f"{error}{'' if self.what == 'unread' else _OF_NOTHING}") from None
        return variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=narrow)


def dead_units(structure: Structure, what: str = "both") -> list[Numbers]:
    """The units of each group that no longer count, groups without any left out; one of each piece always stays.

    what: "unmade", "unread" or "both".
    """
    groups = structure.coupling.groups
    names = {member.tensor for group in groups for member in group.members}
    values = {name: np.abs(structure.values(name)) for name in names}
    found = [np.zeros(len(group), dtype=bool) for group in groups]
    while True:
        before = sum(int(dead.sum()) for dead in found)
        for group, dead in zip(groups, found, strict=True):
            dead |= _dead(group, values, what)
            dead[:] = np.isin(np.arange(len(group)), group.spared(np.flatnonzero(dead)))
        removed = [group.units[dead] for group, dead in zip(groups, found, strict=True)]
        for name, axis, indices in structure.coupling.stand(removed, EVERYWHERE):
            values[name] = _without(values[name], axis, indices)
        if sum(int(dead.sum()) for dead in found) == before:
            return [units for units in removed if len(units)]


def _dead(group: Group, values: dict[str, Array], what: str) -> NDArray[np.bool_]:
    """[U]: which units of a group nothing makes, or nothing reads. Behind a batch norm, γ and β make them.

    Those that the graph sums up without a weight are read, whatever the weights are.
    """
    makers = (*group.of_role("scales"), *(each for each in group.of_role("makes") if not each.normed))
    sides = {"unmade": (*makers, *group.of_role("shifts")), "unread": group.of_role("reads")}
    dead = np.zeros(len(group), dtype=bool)
    for side, members in sides.items():
        if members and what in (side, "both"):
            silent = np.all([per_unit(member, values[member.tensor]) == 0 for member in members], axis=0)
            silent[group.unweighted if side == "unread" else []] = False
            dead |= silent
    return dead


def _without(values: Array, axis: int, indices: Sequence[int] | Array) -> Array:
    zeroed = np.moveaxis(values.copy(), axis, 0)
    zeroed[indices] = 0
    return np.moveaxis(zeroed, 0, axis)
