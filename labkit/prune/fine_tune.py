"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

from torch import nn

from labkit.data import Dataset
from labkit.progress import Progress
from labkit.technique import Technique
from labkit.train import Hook, Train, fit
from labkit.variant import Variant


class FineTuned(Technique):
    """A technique that trains its result for `fine_tune_epochs`; with 0 it needs no data.

    The subclass declares these fields as knobs, after its own.
    """

    fine_tune_epochs: int
    batch_size: int
    learning_rate: float
    label_smoothing: float
    augment: str
    max_samples: int
    seed: int
    threads: int

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
        recipe = Train(
            epochs=self.fine_tune_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            label_smoothing=self.label_smoothing,
            augment=self.augment,
            max_samples=self.max_samples,
            seed=self.seed,
            threads=self.threads,
        )
        return fit(recipe, variant, dataset, progress, after_step=after_step)
