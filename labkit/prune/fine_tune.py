"""What pruning has broken, a short training mends: the part that both kinds of pruning share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from labkit.data import Dataset
from labkit.distill import Retaught
from labkit.onnx_graph import open_graph, set_constant
from labkit.onnx_graph.as_torch import OnnxModule, as_torch
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
    ) -> Any:
        """`pruned.model` after the fine-tuning that the knobs ask for: the model itself if that is none.

        An ONNX file is trained as the module that PyTorch can carry out (`onnx_graph/as_torch`), its constants are
        then put back; `after_step` is given that module. Raises TechniqueError if it has an operator without one.
        """
        if dataset is None or not self.fine_tune_epochs:
            return pruned.model
        recipe = self.recipe(self.fine_tune_epochs)
        if pruned.format == "torch":
            return fit(recipe, pruned, dataset, progress, self.loss_from(whole), after_step)
        graph = open_graph(pruned.payload)
        student = dataclasses.replace(pruned, format="torch", model=as_torch(open_graph(pruned.payload)))
        recipe = dataclasses.replace(recipe, precision="float32")
        trained = fit(recipe, student, dataset, progress, self.loss_from(whole), after_step)
        assert isinstance(trained, OnnxModule)  # noqa: S101 - a copy of what went in
        for name, values in trained.constants().items():
            set_constant(graph, name, values.numpy())
        return graph.SerializeToString()
