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
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from labkit.data import Dataset
from labkit.environment import current
from labkit.errors import TechniqueError
from labkit.technique import knob
from labkit.train import Loss, Trains
from labkit.variant import Variant


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


@dataclass(frozen=True, kw_only=True)
class Taught(Trains):
    """A technique whose training listens to a teacher, the variant that it is given, as much as `alpha` says."""

    temperature: float = knob(4.0, "softens the teacher's answers", above=0.0, max=50.0)
    alpha: float = knob(0.9, "weight of the distillation loss; the labels' is 1 − alpha", min=0.0, max=1.0)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError where a teacher is to be heard who has no class probabilities."""
        super().requires(variant, dataset)
        if self.alpha > 0 and variant.task != "classification":
            raise TechniqueError(
                f"distillation compares class probabilities, so it is not for {variant.task}, which "
                f"{variant.name!r} does: train a smaller network on the data itself (labkit.train.Train)"
            )

    def loss_from(self, teacher: Variant) -> Loss | None:
        """The loss of `fit`, in which the teacher answers the same augmented batch; None if it is to be silent."""
        if self.alpha == 0:
            return None
        module = copy.deepcopy(teacher.model).eval()

        def loss(output: Tensor, target: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=current().has_bf16):
                soft = module(*inputs).float()
            return distillation_loss(output, soft, target, self.temperature, self.alpha, self.label_smoothing)

        return loss
