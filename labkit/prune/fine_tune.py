"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from labkit.data import Dataset
from labkit.distill import Retaught
from labkit.onnx_graph.as_torch import OnnxModule
from labkit.progress import Progress
from labkit.prune.files import as_file, as_module
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
    ) -> Any:
        """`pruned.model` after the fine-tuning that the knobs ask for: the model itself if that is none.

        An ONNX file is trained as the module that PyTorch makes of it, and `after_step` is given that. Raises
        TechniqueError if it has an operator that PyTorch cannot do.
        """
        if dataset is None or not self.fine_tune_epochs:
            return pruned.model
        if pruned.format == "onnx":
            student, teacher = as_module(pruned), as_module(whole)
            return as_file(pruned, self.fine_tune(student, teacher, dataset, progress, after_step))
        recipe = self.recipe(self.fine_tune_epochs)
        if isinstance(pruned.model, OnnxModule):  # a graph names the types that its operators compute in
            recipe = dataclasses.replace(recipe, precision="float32")
        return fit(recipe, pruned, dataset, progress, self.loss_from(whole), after_step)
