"""How much a channel matters: a number per channel, largest first to keep.

    l1        Σ |w| over the weights that make it (Li et al. 2017)
    l2        √Σ w²
    bn_scale  |γ| of the batch norm behind it: the network's own volume control (Liu et al. 2017)
    taylor    (Σ g·w)², what the loss would change by to first order without it (Molchanov et al. 2019, section 3.1)
    random    the control: a criterion that does not beat it has learned nothing about the channels

A channel of a residual stream is made by several layers; its importance is the sum over all of them. A head of an
attention is made by the rows of three weights, and counts them all.

A batch norm makes the loss blind to how large the weights before it are, so there Σ g·w says nothing. Behind one,
taylor sums over its γ and β instead, which is the same as a gate on the channel (Molchanov et al. 2019, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from labkit.errors import TechniqueError
from labkit.prune.coupling import Group, Member
from labkit.variant import Array

IMPORTANCES = ("l1", "l2", "bn_scale", "taylor", "random")
Importance = NDArray[np.float64]
Values = Callable[[str], Array]
"""An initializer's name → its numbers."""


def channel_importance(
    kind: str,
    group: Group,
    values: Values,
    random: np.random.Generator,
    products: Iterable[Mapping[str, Array]] = (),
) -> Importance:
    """The importance of each of a group's U units: [U].

    `random` is drawn from by "random" alone; `products` are g·w of each weight, batch by batch, for "taylor".
    Raises TechniqueError for "bn_scale" without a batch norm, and for "taylor" without a batch.
    """
    if kind == "random":
        return random.random(len(group))
    if kind == "taylor":
        squares = [_gate(group, batch) ** 2 for batch in products]
        if not squares:
            raise TechniqueError(
                "importance='taylor' needs gradients, and there are no training samples to take them of: give a "
                "dataset that has some (dataset=…), or take 'l1'"
            )
        return _sum(squares) / len(squares)
    if kind == "bn_scale":
        if not group.of_role("scales"):
            raise TechniqueError(
                f"importance='bn_scale' needs a batch norm behind {group.name}; it has none, or an export has folded "
                "it away: use 'l1'"
            )
        return _sum(per_unit(member, np.abs(values(member.tensor))) for member in group.of_role("scales"))
    makers = group.of_role("makes")
    if kind == "l1":
        return _sum(per_unit(member, np.abs(values(member.tensor))) for member in makers)
    return _sum(np.sqrt(per_unit(member, np.square(values(member.tensor)))) for member in makers)


def _gate(group: Group, products: Mapping[str, Array]) -> Importance:
    """Σ g·w over what decides how loud a unit is: [U]."""
    scales = group.of_role("scales")
    members = (*(scales or group.of_role("makes")), *group.of_role("shifts"))
    parts = [per_unit(member, products[member.tensor]) for member in members if member.tensor in products]
    return _sum(parts) if parts else np.zeros(len(group))


def per_unit(member: Member, values: Array) -> Importance:
    """The sum of `values`, of the member's tensor, over all that belongs to each unit: [U]."""
    rows = np.moveaxis(np.asarray(values, np.float64), member.axis, 0)
    sums: Importance = rows.reshape(len(rows), -1).sum(1)[member.indices].sum(1)
    return sums


def _sum(parts: Iterable[Importance]) -> Importance:
    total: Importance = np.sum(list(parts), axis=0)
    return total
