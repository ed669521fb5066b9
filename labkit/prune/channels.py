"""Channel pruning: take whole channels out, and the network is smaller, faster and still dense.

Unlike single zeros, a missing channel saves time in every runtime, with no special kernel: a convolution of
C_in × C_out channels costs k²·C_in·C_out·H·W multiply-adds, so removing half of both leaves a quarter. The
result is the same architecture with smaller widths. Before fine-tuning it computes exactly what the original
would with those channels set to zero; fine-tuning then mends what that broke (Li et al. 2017).

A CPU computes 8 or 16 channels at a time, and 10 of them in the time of 16. So fewer multiply-adds are not
always less time: `round_to=8` keeps widths that fill its registers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.models import build
from labkit.progress import Progress
from labkit.prune.fine_tune import FineTuned
from labkit.prune.groups import Group, State, channel_groups, get_width, remove
from labkit.prune.importance import IMPORTANCES, channel_importance
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class PruneChannels(FineTuned):
    """Remove the least important channels of every layer, and fine-tune what remains.

    "inner" touches only the channels within a residual block; "all" narrows the residual streams too.
    """

    name: ClassVar[str] = "prune_channels"
    title: ClassVar[str] = "Channel pruning (smaller and faster)"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    pruning_ratio: float = knob(0.5, "fraction of the channels that is removed", above=0.0, below=1.0)
    importance: str = knob("l1", "which channels matter: those with the largest …", choices=IMPORTANCES)
    what: str = knob("all", "inside the residual blocks, or everywhere", choices=("inner", "all"))
    round_to: int = knob(1, "keep a multiple of this; CPUs like 8 or 16", min=1, max=64, unit="channels")

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the network can be rebuilt with other widths."""
        super().requires(variant, dataset)
        if not hasattr(variant.model, "config"):
            raise TechniqueError(
                f"{variant.name!r} is a {type(variant.model).__name__}, and labkit can rebuild only its own "
                "architectures with fewer channels: distil into one (labkit.distill.Distill), or use "
                "PruneMagnitude, which takes any network"
            )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Choose the channels, build the narrower network, copy what stays, fine-tune."""
        config, state = variant.model.config, variant.model.state_dict()
        kept = self.choose(config, state)
        if all(len(indices) == get_width(config, group.width) for group, indices in kept.items()):
            raise TechniqueError(
                f"pruning_ratio={self.pruning_ratio} with round_to={self.round_to} removes no channel of "
                f"{variant.name!r}: raise the one or lower the other"
            )
        narrow_config, narrow_state = remove(config, state, kept)
        module = build(narrow_config)
        module.load_state_dict(narrow_state)
        result = variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=module.eval())
        return dataclasses.replace(result, model=self.fine_tune(result, variant, dataset, progress))

    def choose(self, config: Mapping[str, Any], state: State) -> dict[Group, Tensor]:
        """The channels to keep: group → ascending indices, [K] int64 with 1 ≤ K ≤ C."""
        generator = torch.Generator().manual_seed(self.seed)
        kept: dict[Group, Tensor] = {}
        for group in channel_groups(config):
            if self.what == "all" or not group.residual:
                importance = channel_importance(self.importance, group, state, generator)
                count = remaining(len(importance), self.pruning_ratio, self.round_to)
                kept[group] = importance.argsort(descending=True, stable=True)[:count].sort().values
        return kept


def remaining(channels: int, pruning_ratio: float, round_to: int = 1) -> int:
    """How many of `channels` stay: (1 − pruning_ratio)·channels to the nearest multiple of `round_to`.

    At least one multiple stays, and never more than there are: remaining(16, 0.6, round_to=4) → 8.
    """
    multiples = max(1, round((1 - pruning_ratio) * channels / round_to))
    return min(channels, multiples * round_to)
