"""Pruning of single weights: zeros wherever a weight is worth least, by any criterion, on any schedule.

`scores.py` says what a weight is worth, `masks.py` where weights compete and how many go, `schedule.py` when. No
mask stays behind: the result is the same network with plain zeros among its weights.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from labkit.data import Dataset
from labkit.errors import ConfigError, TechniqueError
from labkit.measure.lock import Patience
from labkit.progress import Progress, part
from labkit.prune.files import require_floats
from labkit.prune.fine_tune import FineTuned
from labkit.prune.masks import SCOPES, choose, input_axes, prunable_weights, silence, sparsity_of, zero
from labkit.prune.schedule import SCHEDULES, Choose, Gradual, in_rounds
from labkit.prune.scores import CRITERIA, Criterion, Taylor, gradients, magnitudes
from labkit.technique import knob
from labkit.train import in_words, scored, steps_per_epoch
from labkit.variant import Variant

_BATCH = 32
_TO_TWO_DECIMALS = 0.005


@dataclass(frozen=True)
class ZeroesWeights(FineTuned):
    """What all pruning of single weights shares: how many go, where they compete, and when."""

    takes: ClassVar[tuple[str, ...]] = ("torch", "onnx")

    sparsity: float = knob(0.5, "fraction of the weights that become zero", above=0.0, below=1.0)
    scope: str = knob(
        "global", "whom a weight competes with: network, layer, or m along the input axis", choices=SCOPES
    )
    group_size: int = knob(4, "the m of scope n:m; 4 at sparsity 0.5 is 2:4", min=2, max=64, unit="weights")
    schedule: str = knob("one_shot", "at once, in rounds, or during the fine-tuning", choices=SCHEDULES)
    rounds: int = knob(5, "iterative: how often; fine_tune_epochs are those of each", min=2, max=100)
    ramp: float = knob(0.5, "gradual: share of the fine-tuning in which sparsity rises", above=0.0, max=1.0)
    regrow: bool = knob(True, "gradual: zeroed weights may return while the sparsity rises")
    learning_rate: float = knob(0.02, "the highest rate of fine-tuning", above=0.0, max=10.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        zeros = round(self.sparsity * self.group_size)
        whole = abs(self.sparsity - zeros / self.group_size) <= _TO_TWO_DECIMALS
        if self.scope == "n:m" and not (whole and 0 < zeros < self.group_size):
            allowed = ", ".join(f"{k / self.group_size:.3g}" for k in range(1, self.group_size))
            raise ConfigError(
                f"sparsity={self.sparsity} of every {self.group_size} weights is no whole number of them: with "
                f"scope='n:m' and group_size={self.group_size} it can be {allowed}"
            )
        if self.schedule != "one_shot" and not self.fine_tune_epochs:
            raise ConfigError(
                f"schedule={self.schedule!r} needs a fine-tuning to take place in: give fine_tune_epochs, such as 5"
            )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse a quantized file."""
        super().requires(variant, dataset)
        require_floats(variant)

    def make_criterion(self) -> Criterion:
        """What scores the weights; a fresh one for each run."""
        return CRITERIA["magnitude"]()

    def chooser(self, module: nn.Module) -> Choose:
        """What makes the masks of this module's weights."""
        return functools.partial(
            choose, scope=self.scope, group_size=self.group_size, axes=input_axes(module)
        )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Zero the weights of a copy by the schedule; whatever is trained afterwards holds them at zero."""
        if variant.format == "onnx":
            return variant.derive(
                f"{variant.name}+{self.name}",
                self.step(variant),
                model=self.on_module(
                    variant, variant, dataset, lambda module: self.apply(module, dataset, progress).model
                ),
            )
        weights = prunable_weights(variant.model)
        if not weights:
            raise TechniqueError(
                f"{variant.name!r} has no convolution or linear layer to prune whose weight is stored in full: prune "
                "before it is stored in fewer bits"
            )
        smallest = self.chooser(variant.model)(weights, magnitudes(weights), self.sparsity)
        if not any(bool(weight[mask].any()) for weight, mask in zip(weights, smallest, strict=True)):
            raise TechniqueError(
                f"sparsity={self.sparsity} changes nothing in {variant.name!r}, where that many weights are "
                "zero already: raise it"
            )
        name, module = f"{variant.name}+{self.name}", copy.deepcopy(variant.model)
        result = variant.derive(name, self.step(variant), model=module)
        if self.schedule == "gradual":
            return self._gradually(result, variant, dataset, progress)
        rounds = self.rounds if self.schedule == "iterative" else 1
        criterion, start = self.make_criterion(), min(self.sparsity, sparsity_of(weights))
        for index, sparsity in enumerate(in_rounds(start, self.sparsity, rounds)):
            said = f"round {index + 1}/{rounds}, " if rounds > 1 else ""
            share = part(progress, index / rounds, (index + 1) / rounds, said)
            result = self._at_once(result, variant, criterion, sparsity, dataset, share)
        return result

    def _at_once(
        self,
        result: Variant,
        whole: Variant,
        criterion: Criterion,
        sparsity: float,
        dataset: Dataset | None,
        progress: Progress,
    ) -> Variant:
        """Prune `result.model`, which is ours to change, and fine-tune a copy of it."""
        looked = 0.0
        if isinstance(criterion, Taylor) and dataset is not None:
            looked = 0.1 if self.fine_tune_epochs else 1.0
            show_gradients(criterion, result, dataset, part(progress, 0.0, looked))
        weights = prunable_weights(result.model)
        masks = self.chooser(result.model)(weights, criterion.scores(weights), sparsity)
        zero(result.model, masks)
        rest = part(progress, looked, 1.0)
        tuned = self.fine_tune(result, whole, dataset, rest, lambda module: silence(module, masks))
        return dataclasses.replace(result, model=tuned)

    def _gradually(
        self, result: Variant, whole: Variant, dataset: Dataset | None, progress: Progress
    ) -> Variant:
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        steps = steps_per_epoch(self, dataset) * self.fine_tune_epochs
        ramp_steps = max(1, int(self.ramp * steps))
        criterion = self.make_criterion()
        hook = Gradual(
            result.model, criterion, self.chooser(result.model), self.sparsity, ramp_steps, self.regrow
        )
        return dataclasses.replace(result, model=self.fine_tune(result, whole, dataset, progress, hook))


@dataclass(frozen=True)
class PruneWeights(ZeroesWeights):
    """Zero the weights of all convolutions and linear layers that are worth least by the criterion of your choice.

    Neither faster nor smaller as a dense file: only `nonzero_parameters` falls.
    """

    name: ClassVar[str] = "prune_weights"
    title: ClassVar[str] = "Weight pruning by a criterion (zeros; no speed by itself)"

    criterion: str = knob("magnitude", "what a weight is worth", choices=tuple(CRITERIA))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.criterion == "movement" and self.schedule != "gradual":
            raise ConfigError(
                "criterion='movement' sees where the weights go while they are trained: use schedule='gradual'"
            )

    @property
    def needs_dataset(self) -> bool:  # type: ignore[override]
        """Whether there is anything to train, or a gradient to take."""
        return self.fine_tune_epochs > 0 or self.criterion == "taylor"

    def make_criterion(self) -> Criterion:
        """The criterion by its name."""
        return CRITERIA[self.criterion](self.seed)


def show_gradients(criterion: Criterion, variant: Variant, dataset: Dataset, progress: Progress) -> None:
    """Let `criterion` see the gradient of the task's loss on each batch of the calibration split. Trains nothing."""
    module = copy.deepcopy(variant.model).eval()
    weights = [weight.requires_grad_() for weight in prunable_weights(module)]  # those of a frozen layer too
    samples, patience, done = dataset.split("calibration"), Patience(), 0
    for batch in samples.batches(_BATCH):
        feeds = variant.feeds(batch.inputs)
        with patience.shared():
            module.zero_grad()
            inputs = tuple(torch.from_numpy(feeds[spec.name]) for spec in variant.inputs)
            with in_words(module, inputs):
                loss = dataset.task.loss(scored(module(*inputs)), torch.tensor(batch.target))
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                criterion.watch(weights, gradients(weights))
        done += len(batch)
        progress(done / len(samples), f"gradients: {done}/{len(samples)}")
