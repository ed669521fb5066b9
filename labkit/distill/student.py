"""Soft targets: the student learns how sure the teacher is of every class (Hinton, Vinyals and Dean 2015).

A label says "this is a 7". The teacher says "a 7, a little like a 1, not at all like an 8": that knowledge
sits in its small probabilities, and a temperature T > 1 makes them large enough to learn from.

    loss = α · T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)) + (1 − α) · cross-entropy(z_s, label)

Softening divides the gradient by about T²; the factor T² puts it back, so that α keeps its meaning when T
changes. With α = 0 the teacher is silent: the same student under the same budget, which is what a
distilled one has to beat.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from labkit.data import Dataset
from labkit.distill.start import STARTS, copy_weights
from labkit.environment import current
from labkit.errors import TechniqueError
from labkit.models import MODELS, build
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import Loss, Trains, fit
from labkit.variant import Variant

_WIDTHS = ("channels", "hidden", "stages", "inner")


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """α · T² · KL(teacher ‖ student) + (1 − α) · cross-entropy, the mean over the batch (Hinton et al. 2015).

    student_logits, teacher_logits: [N, C]; target: [N] class indices. Returns []. KL is taken between the
    softmaxes of the logits divided by the temperature and is zero only where they are equal.
    """
    log_teacher = (teacher_logits / temperature).log_softmax(-1)
    log_student = (student_logits / temperature).log_softmax(-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()
    hard = cross_entropy(student_logits, target, label_smoothing=label_smoothing)
    return alpha * temperature**2 * divergence + (1 - alpha) * hard


@dataclass(frozen=True)
class Distill(Trains):
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
    temperature: float = knob(4.0, "softens the teacher's answers", above=0.0, max=50.0)
    alpha: float = knob(0.9, "weight of the distillation loss; the labels' is 1 − alpha", min=0.0, max=1.0)
    epochs: int = knob(12, "passes over the training data", min=1, max=1000)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the teacher classifies images of one size."""
        super().requires(variant, dataset)
        if variant.task != "classification":
            raise TechniqueError(
                f"distillation compares class probabilities, so it is not for {variant.task}, which "
                f"{variant.name!r} does: train a smaller network on the data itself (labkit.train.Train)"
            )
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
        loss = self.loss_from(variant) if self.alpha > 0 else None
        return dataclasses.replace(
            student, model=fit(self.recipe(self.epochs), student, dataset, progress, loss)
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

    def loss_from(self, teacher: Variant) -> Loss:
        """The loss of `fit`, in which the teacher answers the same augmented batch that the student sees."""
        module = copy.deepcopy(teacher.model).eval()

        def loss(output: Tensor, target: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=current().has_bf16):
                soft = module(*inputs).float()
            return distillation_loss(output, soft, target, self.temperature, self.alpha, self.label_smoothing)

        return loss


def scaled(widths: Any, factor: float) -> Any:
    """Every width in a number, list or dictionary times `factor`, to the nearest multiple of 4 above 0."""
    if isinstance(widths, dict):
        return {name: scaled(value, factor) for name, value in widths.items()}
    if isinstance(widths, list):
        return [scaled(value, factor) for value in widths]
    return max(4, 4 * round(widths * factor / 4))
