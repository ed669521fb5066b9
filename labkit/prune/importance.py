"""How much a channel matters: a number per channel, largest first to keep.

    l1        Σ |w| over the weights that produce it (Li et al. 2017)
    l2        √Σ w²
    bn_scale  |γ| of the batch norm behind it: the network's own volume control (Liu et al. 2017)
    random    the control: a criterion that does not beat it has learned nothing about the channels

A channel of a residual stream has several producers; its importance is the sum over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.errors import TechniqueError
from labkit.prune.groups import Group, State

IMPORTANCES = ("l1", "l2", "bn_scale", "random")


def channel_importance(kind: str, group: Group, state: State, generator: torch.Generator) -> Tensor:
    """The importance of each of a group's C channels: [C], float32.

    `generator` is drawn from by "random" alone. Raises TechniqueError for "bn_scale" without a batch norm.
    """
    weights = [state[f"{name}.weight"].flatten(1) for name in group.producers]  # each [C, inputs · k · k]
    if kind == "random":
        return torch.rand(len(weights[0]), generator=generator)
    if kind == "bn_scale":
        if not group.norms:
            raise TechniqueError(
                f"importance='bn_scale' needs a batch norm behind {group.producers[0]}; it has none: use 'l1'"
            )
        return torch.stack([state[f"{name}.weight"].abs() for name in group.norms]).sum(0)
    order = 1 if kind == "l1" else 2
    return torch.stack([weight.norm(p=order, dim=1) for weight in weights]).sum(0)
