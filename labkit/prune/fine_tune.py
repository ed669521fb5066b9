"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.data import Dataset
from labkit.distill import Retaught
from labkit.onnx_graph.as_torch import OnnxModule
from labkit.progress import Progress
from labkit.prune.files import as_file, in_torch
from labkit.prune.norms import Staying, moments, with_batch_norms, without_batch_norms
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fine_tune_epochs:
            self.refuse_idle(
                "alpha", "a teacher is heard in a fine-tuning alone: give fine_tune_epochs, such as 5"
            )

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
    ) -> Any:
        """`pruned.model`, a module, after the fine-tuning that the knobs ask for: the model itself if that is none."""
        if dataset is None or not self.fine_tune_epochs:
            return pruned.model
        recipe = self.recipe(self.fine_tune_epochs)
        if isinstance(pruned.model, OnnxModule):  # a graph names the types that its operators compute in
            recipe = dataclasses.replace(recipe, precision="float32")
        return fit(recipe, pruned, dataset, progress, self.loss_from(whole), after_step)

    def on_module(
        self,
        pruned: Variant,
        whole: Variant,
        dataset: Dataset | None,
        change: Callable[[Variant], Any],
        staying: Staying | None = None,
    ) -> bytes:
        """The ONNX file `pruned` with the weights that `change` gives it, who works on it as a module of PyTorch's.

        Where that is trained, its convolutions have batch norms (`norms`); `staying` says which channels of the
        `whole` file are left. Raises TechniqueError if the file has an operator that PyTorch cannot do.
        """
        trained_on = dataset if self.fine_tune_epochs else None
        known = moments(whole, trained_on, self.batch_size, self.seed) if trained_on else {}
        if not known:
            return as_file(pruned, change(in_torch(pruned)))
        normed = dataclasses.replace(pruned, model=with_batch_norms(pruned.payload, known, staying or {}))
        return without_batch_norms(as_file(normed, change(in_torch(normed))))
