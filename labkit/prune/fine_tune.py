"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from labkit.data import Dataset
from labkit.distill import Retaught
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import Hook, fit
from labkit.variant import Variant


@dataclass(frozen=True, kw_only=True)
class FineTuned(Retaught):
    """A technique that trains its result for `fine_tune_epochs`; with 0 it needs no data.

    With `alpha` above 0 the whole network teaches what is left of it, which mends more than the labels do alone; so may
    another one, `teacher`.
    """

    fine_tune_epochs: int = knob(0, "epochs of training after the pruning", min=0, max=1000)
    learning_rate: float = knob(0.05, "the highest rate of fine-tuning", above=0.0, max=10.0)

    @property
    def needs_dataset(self) -> bool:  # type: ignore[override]
        """Whether there is anything to train."""
        return self.fine_tune_epochs > 0

    def fine_tune(
        self,
        pruned: Variant,
        whole: Variant,
        dataset: Dataset | None,
        progress: Progress,
        after_step: Hook | None = None,
    ) -> nn.Module:
        """`pruned.model` after the fine-tuning that the knobs ask for: the module itself if that is none."""
        if dataset is None or not self.fine_tune_epochs:
            module: nn.Module = pruned.model
            return module
        recipe = self.recipe(self.fine_tune_epochs)
        return fit(recipe, pruned, dataset, progress, self.loss_from(whole), after_step)
