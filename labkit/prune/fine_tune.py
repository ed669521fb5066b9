"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from labkit.data import Dataset
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import Hook, Trains, fit
from labkit.variant import Variant


@dataclass(frozen=True, kw_only=True)
class FineTuned(Trains):
    """A technique that trains its result for `fine_tune_epochs`; with 0 it needs no data."""

    fine_tune_epochs: int = knob(0, "epochs of training after the pruning", min=0, max=1000)
    learning_rate: float = knob(0.05, "the highest rate of fine-tuning", above=0.0, max=10.0)

    @property
    def needs_dataset(self) -> bool:  # type: ignore[override]
        """Whether there is anything to train."""
        return self.fine_tune_epochs > 0

    def fine_tune(
        self, variant: Variant, dataset: Dataset | None, progress: Progress, after_step: Hook | None = None
    ) -> nn.Module:
        """`variant.model` after the fine-tuning that the knobs ask for: the module itself if that is none."""
        if dataset is None or not self.fine_tune_epochs:
            module: nn.Module = variant.model
            return module
        return fit(self.recipe(self.fine_tune_epochs), variant, dataset, progress, after_step=after_step)
