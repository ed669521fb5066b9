"""The student: a smaller network that is built for the teacher's task and learns from the teacher's answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from labkit.data import Dataset
from labkit.distill.soft_targets import Taught
from labkit.distill.start import STARTS, copy_weights
from labkit.errors import TechniqueError
from labkit.models import MODELS, build
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import fit
from labkit.variant import Variant

_WIDTHS = ("channels", "hidden", "stages", "inner")


@dataclass(frozen=True)
class Distill(Taught):
    """Train a new, smaller network on the answers of the variant that it is given, the teacher.

    The student takes the teacher's inputs, preprocessing and classes; `start` says what its first weights are.
    """

    name: ClassVar[str] = "distill"
    title: ClassVar[str] = "Distillation into a smaller student"
    takes: ClassVar[tuple[str, ...]] = ("torch",)
    needs_dataset: ClassVar[bool] = True

    student: str = knob("resnet8", "the student's architecture", choices=MODELS)
    width: float = knob(0.5, "share of the architecture's own channels", above=0.0, max=1.0)
    first_stride: int = knob(1, "2: the student computes on a quarter of the pixels", min=1, max=2)
    start: str = knob(
        "random", "the student's first weights: random, or every k-th block of its teacher", choices=STARTS
    )
    epochs: int = knob(12, "passes over the training data", min=1, max=1000)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the teacher turns images of one size into one row of numbers each."""
        super().requires(variant, dataset)
        shapes = [spec.shape[1:] for spec in (*variant.inputs, *variant.outputs)]
        sizes = [size for shape in shapes for size in shape]
        if [len(shape) for shape in shapes] != [3, 1] or not all(isinstance(size, int) for size in sizes):
            raise TechniqueError(
                "the students turn one image [batch, channels, height, width] of a fixed size into logits "
                f"[batch, classes]; {variant.name!r} has other inputs or outputs"
            )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Build the student, train it under the teacher's eyes, return it; the teacher is its parent."""
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        name = f"{self.student}@{dataset.name}+{self.name}"
        student = variant.derive(name, self.step(variant), model=self.fresh_student(variant))
        return dataclasses.replace(
            student, model=fit(self.recipe(self.epochs), student, dataset, progress, self.loss_from(variant))
        )

    def fresh_student(self, teacher: Variant) -> nn.Module:
        """An untrained student that takes the teacher's image and answers with the teacher's classes."""
        whole = {
            "architecture": self.student,
            "input_shape": list(teacher.inputs[0].shape[1:]),
            "num_outputs": teacher.outputs[0].shape[1],
        }
        full_size: Any = build(whole)
        smaller = scaled(
            {name: full_size.config[name] for name in _WIDTHS if name in full_size.config}, self.width
        )
        if self.first_stride > 1:
            smaller["first_stride"] = self.first_stride  # an architecture without one says so
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            student = build({**whole, **smaller}).eval()
        if self.start == "teacher":
            copy_weights(teacher, student)
        return student


def scaled(widths: Any, factor: float) -> Any:
    """Every width in a number, list or dictionary times `factor`, to the nearest multiple of 4 above 0."""
    if isinstance(widths, dict):
        return {name: scaled(value, factor) for name, value in widths.items()}
    if isinstance(widths, list):
        return [scaled(value, factor) for value in widths]
    return max(4, 4 * round(widths * factor / 4))
