"""Channel pruning: take whole channels out, and the network is smaller, faster and still dense.

Unlike single zeros, a missing channel saves time in every runtime, with no special kernel: a convolution of
C_in × C_out channels costs k²·C_in·C_out·H·W multiply-adds, so removing half of both leaves a quarter. What hangs
together (`coupling`) leaves together: a channel of a residual stream from all layers that add to it, a head of an
attention from its queries, keys, values and what reads them. Before fine-tuning the result computes exactly what the
original would with those channels set to zero; fine-tuning then mends what that broke (Li et al. 2017).

A CPU computes 8 or 16 channels at a time, and 10 of them in the time of 16. So fewer multiply-adds are not
always less time: `round_to=8` keeps widths that fill its registers, `round_to=0` measures which multiple the runtime
likes, and `target="latency"` prunes until a share of the measured time is left.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np

from labkit.data import Dataset
from labkit.errors import ConfigError, TechniqueError, nearest
from labkit.progress import Progress, part, silent
from labkit.prune.coupling import Group
from labkit.prune.coupling.axis import Numbers
from labkit.prune.files import in_torch, require_floats
from labkit.prune.fine_tune import FineTuned
from labkit.prune.importance import IMPORTANCES, Importance, channel_importance
from labkit.prune.structure import Misread, Structure, read_structure
from labkit.prune.target import TARGETS, OutOfReach, favourite_multiple, reach
from labkit.technique import knob
from labkit.variant import Variant

_TAYLOR_BATCHES = 8


@dataclass(frozen=True)
class PruneChannels(FineTuned):
    """Remove the least important channels and attention heads, and fine-tune what remains.

    Takes any PyTorch module that can be traced, and ONNX files. "inner" touches only what lies within a residual
    block; "all" narrows the residual streams too. What the rules do not cover stays whole.
    """

    name: ClassVar[str] = "prune_channels"
    title: ClassVar[str] = "Channel pruning (smaller and faster)"
    takes: ClassVar[tuple[str, ...]] = ("torch", "onnx")

    pruning_ratio: float = knob(0.5, "fraction of the channels that is removed", above=0.0, below=1.0)
    importance: str = knob("l1", "which channels matter: those with the largest …", choices=IMPORTANCES)
    what: str = knob("all", "inside the residual blocks, or everywhere", choices=("inner", "all"))
    round_to: int = knob(
        1, "keep a multiple of this; 0: of what the runtime likes, measured", min=0, max=64, unit="channels"
    )
    ranking: str = knob(
        "layer", "the same fraction of each layer, or the least of all", choices=("layer", "global")
    )
    target: str = knob("ratio", "prune by pruning_ratio, or until `keep` of this is left", choices=TARGETS)
    keep: float = knob(0.5, "fraction of the target that is to be left", above=0.0, below=1.0)
    runtime: str = knob("onnxruntime", "where time is measured", choices=("onnxruntime", "openvino"))
    only: str = knob("", "names of groups, with commas and *, such as blocks.0.*; empty: every group")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target == "ratio":
            self.refuse_idle("keep", f"set target too, to one of {', '.join(TARGETS[1:])}")
        else:
            self.refuse_idle(
                "pruning_ratio", f"target={self.target!r} prunes until `keep` is left; or leave target out"
            )

    @property
    def needs_dataset(self) -> bool:  # type: ignore[override]
        """Whether there is anything to train, or a gradient to take."""
        return self.fine_tune_epochs > 0 or self.importance == "taylor"

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse a quantized file."""
        super().requires(variant, dataset)
        require_floats(variant)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Find what hangs together, choose, cut, fine-tune."""
        progress(0.0, "reading which channels hang together")
        structure = read_structure(variant)
        progress(0.0, structure.summary())
        try:
            removed, narrow = self._cut(structure, dataset, part(progress, 0.0, 0.1))
        except Misread:
            progress(0.1, "trying which channels can go")
            structure = structure.fitting()
            progress(0.1, structure.summary())
            removed, narrow = self._cut(structure, dataset, part(progress, 0.1, 0.1))
        result = variant.derive(f"{variant.name}+{self.name}", self.step(variant), model=narrow)
        model = self._mend(result, variant, structure, removed, dataset, part(progress, 0.1, 1.0))
        return dataclasses.replace(result, model=model)

    def _cut(
        self, structure: Structure, dataset: Dataset | None, progress: Progress
    ) -> tuple[Sequence[Numbers], Any]:
        """The units to remove, and the model without them; Misread if it turns out that they cannot be."""
        weighed = self.weigh(structure, dataset, part(progress, 0.0, 0.5))
        removed = self._removed(structure, weighed, part(progress, 0.5, 1.0))
        return removed, structure.narrow(removed)

    def _mend(
        self,
        pruned: Variant,
        whole: Variant,
        structure: Structure,
        removed: Sequence[Numbers],
        dataset: Dataset | None,
        progress: Progress,
    ) -> Any:
        """`pruned.model` after the fine-tuning; an ONNX file is trained as a module that computes the same."""
        if not self.fine_tune_epochs:
            return pruned.model
        if pruned.format == "torch":
            return self.fine_tune(pruned, whole, dataset, progress)
        teacher, staying = in_torch(whole), structure.coupling.indices(removed)
        return self.on_module(
            pruned, whole, dataset, lambda module: self.fine_tune(module, teacher, dataset, progress), staying
        )

    def _removed(
        self, structure: Structure, weighed: Mapping[Group, Importance], progress: Progress
    ) -> Sequence[Numbers]:
        """The units to remove; TechniqueError if there are none, or the target cannot be reached."""
        rounded = self
        if self.round_to == 0:
            progress(0.0, f"timing which widths {self.runtime} likes")

            def choose(multiple: int, ratio: float) -> list[Numbers]:
                return dataclasses.replace(self, round_to=multiple).choose(weighed, ratio)

            timing = part(progress, 0.0, 0.5)
            multiple = favourite_multiple(structure, choose, self.pruning_ratio, self.runtime, timing)
            rounded, progress = dataclasses.replace(self, round_to=multiple), part(progress, 0.5, 1.0)
        if self.target != "ratio":
            by_ratio = functools.partial(rounded.choose, weighed)
            try:
                return reach(self.target, self.keep, self.runtime, structure, by_ratio, progress)
            except OutOfReach as error:
                raise TechniqueError(f"{error}; {rounded._room(structure, error.least)}") from None
        removed = rounded.choose(weighed, self.pruning_ratio)
        if not removed:
            raise TechniqueError(
                f"pruning_ratio={self.pruning_ratio} with round_to={self.round_to} removes no channel of "
                f"{structure.variant.name!r}: raise the one or lower the other"
            )
        return removed

    def _room(self, structure: Structure, least: float) -> str:
        """What would leave less than `least` or ask for more, as advice: only settings that are not in use already."""
        groups = structure.coupling.groups
        widest = dataclasses.replace(self, only="")
        changes = {
            "only=''": len(self._touched(groups)) < len(widest._touched(groups)),
            "what='all'": len(widest._touched(groups)) < len(groups),
            "round_to=1": self.round_to > 1,
        }
        settings = " and ".join(change for change, helps in changes.items() if helps)
        keep = math.ceil(1000 * least) / 1000
        advice = [f"raise keep to {keep:g}"] if keep < 1 else []
        advice += [f"set {settings}"] if settings else []
        return ", or ".join(advice) or "leave target out, and prune by pruning_ratio"

    def weigh(
        self, structure: Structure, dataset: Dataset | None, progress: Progress = silent
    ) -> dict[Group, Importance]:
        """The importance of every unit of the groups that may lose some: group → [U]."""
        random = np.random.default_rng(self.seed)
        batches = []
        if dataset is not None and self.importance == "taylor":
            for batch in structure.products(dataset, _TAYLOR_BATCHES, self.batch_size, self.seed):
                batches.append(batch)
                progress(len(batches) / _TAYLOR_BATCHES, "asking gradients which channels matter")
        return {
            group: channel_importance(self.importance, group, structure.values, random, batches)
            for group in self._touched(structure.coupling.groups)
        }

    def _touched(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that may lose channels; ConfigError for a name in `only` that none of them has."""
        allowed = [group for group in groups if self.what == "all" or not group.residual]
        wanted = [name.strip() for name in self.only.split(",") if name.strip()]
        for name in wanted:
            if not any(fnmatchcase(group.name, name) for group in allowed):
                known = nearest(name, (group.name for group in allowed))
                raise ConfigError(f"only={name!r}: no such group of channels; {known}")
        return [
            group for group in allowed if not wanted or any(fnmatchcase(group.name, name) for name in wanted)
        ]

    def choose(self, weighed: Mapping[Group, Importance], pruning_ratio: float) -> list[Numbers]:
        """The units to remove, for each group that loses any; of each, and of each piece of it, the best one stays.

        Ranked globally, importances are first divided by their group's mean: layers differ in scale.
        """
        removed = []
        staying = self._how_many(weighed, pruning_ratio)
        for (group, importance), count in zip(weighed.items(), staying, strict=True):
            least_first = group.spared(np.argsort(-importance, kind="stable")[::-1])
            if count < len(group):
                removed.append(group.units[least_first[: len(group) - count]])
        return removed

    def _how_many(self, weighed: Mapping[Group, Importance], pruning_ratio: float) -> list[int]:
        """How many units of each group stay."""
        if self.ranking == "layer":
            shares: Sequence[float] = [1 - pruning_ratio] * len(weighed)
        else:
            scaled = [each / max(float(each.mean()), np.finfo(np.float64).tiny) for each in weighed.values()]
            threshold = np.quantile(np.concatenate(scaled), pruning_ratio) if scaled else 0.0
            shares = [float((each >= threshold).mean()) for each in scaled]
        return [
            remaining(
                len(group), 1 - share, self.round_to // math.gcd(self.round_to, group.width), group.fewest
            )
            for group, share in zip(weighed, shares, strict=True)
        ]


def remaining(channels: int, pruning_ratio: float, round_to: int = 1, fewest: int = 1) -> int:
    """How many of `channels` stay: (1 − pruning_ratio)·channels to the nearest multiple of `round_to`.

    No multiple below `fewest` stays, and never more than there are: remaining(16, 0.6, round_to=4) → 8.
    """
    multiples = max(math.ceil(fewest / round_to), round((1 - pruning_ratio) * channels / round_to))
    return min(channels, multiples * round_to)
