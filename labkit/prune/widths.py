"""Each group of channels as wide as you say: what a choice leaves of the multiply-adds, and the network that it makes.

    widths = Widths(load_model("resnet20@digits"))
    widths.macs({"blocks.0.conv1.weight": 0.5})         # the others stay whole
    narrow = widths.narrow({"blocks.0.conv1.weight": 0.5})

`PruneChannels` chooses the widths by a rule. Here a person does, or a search; which channels of a group go is
decided by the same importance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from labkit.data import Dataset
from labkit.errors import ConfigError, nearest
from labkit.measure.counting import count
from labkit.measure.records import Reason
from labkit.prune.channels import PruneChannels
from labkit.prune.coupling.axis import Numbers
from labkit.prune.structure import read_structure
from labkit.technique import probe
from labkit.variant import Variant

Kept = Mapping[str, float]
"""Group → the share of its channels that stays, above 0 and up to 1."""


class Widths:
    """The groups of a variant's channels, and what it would be with other widths.

    `dataset` is what the importance "taylor" asks, and no other.
    Raises TechniqueError if no channel of `variant` can go, or "taylor" has no data.
    """

    def __init__(self, variant: Variant, importance: str = "l1", dataset: Dataset | None = None) -> None:
        self._technique = PruneChannels(importance=importance)
        self.structure = read_structure(variant)
        self._weighed = self._technique.weigh(self.structure, dataset)
        self.groups = {group.name: len(group) for group in self._weighed}
        self.residual = tuple(group.name for group in self._weighed if group.residual)

    def removed(self, kept: Kept) -> list[Numbers]:
        """The units that go, for each group that loses any; ConfigError for a group or a share that there is not."""
        for name, share in kept.items():
            if name not in self.groups:
                raise ConfigError(f"kept[{name!r}]: no such group of channels; {nearest(name, self.groups)}")
            if not 0 < share <= 1:
                raise ConfigError(f"kept[{name!r}]={share!r} is out of range; allowed: 0 < share ≤ 1")
        chosen = [
            self._technique.choose({group: values}, 1 - kept.get(group.name, 1.0))
            for group, values in self._weighed.items()
        ]
        return [units for of_group in chosen for units in of_group]

    def channels(self, kept: Kept) -> dict[str, int]:
        """Group → how many of its channels stay."""
        gone = {int(unit) for units in self.removed(kept) for unit in units}
        return {group.name: sum(int(unit) not in gone for unit in group.units) for group in self._weighed}

    def macs(self, kept: Kept) -> int:
        """Multiply-adds of one sample, counted on the graph; ConfigError where they cannot be told."""
        graph = self.graph(kept)
        macs = count(graph, probe(graph, batch_size=1)).macs
        if isinstance(macs, Reason):
            raise ConfigError(f"the multiply-adds of {self.structure.variant.name!r} cannot be told: {macs}")
        return macs

    def graph(self, kept: Kept) -> Variant:
        """The graph with these widths, as an ONNX variant: to count and to time."""
        return self.structure.graph(self.removed(kept))

    def narrow(self, kept: Kept) -> Variant:
        """The model with these widths, not trained any further."""
        whole = self.structure.variant
        return dataclasses.replace(
            whole, name=f"{whole.name}+widths", model=self.structure.narrow(self.removed(kept))
        )
