"""Soft targets: the student learns how sure the teacher is of every class (Hinton, Vinyals and Dean 2015).

A label says "this is a 7". The teacher says "a 7, a little like a 1, not at all like an 8": that knowledge
sits in its small probabilities, and a temperature T > 1 makes them large enough to learn from.

    loss = α · T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)) + (1 − α) · cross-entropy(z_s, label)

Softening divides the gradient by about T²; the factor T² puts it back, within a factor of two, so that α keeps its
meaning when T changes. With α = 0 the teacher is silent: the same student under the same budget, which is what a
distilled one has to beat. With α = 1 no label is read at all: any image will do to learn from.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from labkit.data import Dataset
from labkit.distill.shifts import MeanOverShifts
from labkit.environment import current
from labkit.errors import TechniqueError
from labkit.task import as_logits
from labkit.technique import knob
from labkit.train import Loss, Trains, scored
from labkit.variant import Variant

Match = Callable[[Tensor, Tensor, Tensor], Tensor]


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """α · T² · KL(teacher ‖ student) + (1 − α) · cross-entropy, the mean over the batch (Hinton et al. 2015).

    student_logits, teacher_logits: [N, C]; target: [N] class indices, never looked at if alpha is 1. Returns [].
    KL is taken between the softmaxes of the logits divided by the temperature and is zero only where they are equal.
    """
    log_teacher = (teacher_logits / temperature).log_softmax(-1)
    log_student = (student_logits / temperature).log_softmax(-1)
    soft = temperature**2 * divergence(log_teacher, log_student).mean()
    return beside_labels(soft, student_logits, target, alpha, label_smoothing)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each sample, from logarithms of probabilities: [N, C], [N, C] → [N]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def beside_labels(
    soft: Tensor, student_logits: Tensor, target: Tensor, alpha: float, label_smoothing: float
) -> Tensor:
    """α · soft + (1 − α) · cross-entropy with the labels, which are not looked at if α is 1."""
    if alpha == 1:
        return soft
    return alpha * soft + (1 - alpha) * cross_entropy(student_logits, target, label_smoothing=label_smoothing)


def listening(teacher: nn.Module, match: Match) -> Loss:
    """A loss of `fit`: `match(output, the teacher's answer to the same augmented batch, target)`.

    The teacher is a copy in evaluation mode: its dropout is off, its batch statistics stay as they are.
    """
    module = copy.deepcopy(teacher).eval()

    def loss(output: Tensor, target: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=current().has_bf16):
            answer = scored(module(*inputs)).float()
        return match(output, answer, target)

    return loss


@dataclass(frozen=True, kw_only=True)
class Taught(Trains):
    """A technique whose training listens to a teacher, the variant that it is given, as much as `alpha` says."""

    temperature: float = knob(4.0, "softens the teacher's answers", above=0.0, max=50.0)
    alpha: float = knob(0.9, "weight of the distillation loss; the labels' is 1 − alpha", min=0.0, max=1.0)
    teacher_shift: int = knob(
        0,
        "the teacher answers with its mean over the image moved by up to so many pixels each way",
        min=0,
        max=2,
    )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError where a teacher is to be heard who has no class probabilities.

        And where it is to look at moved images, and is silent, or shown something else.
        """
        super().requires(variant, dataset)
        if self.teacher_shift and self.alpha == 0:
            raise TechniqueError(
                f"alpha=0.0 makes the teacher a silent one, and teacher_shift={self.teacher_shift} idle: "
                "set alpha above 0"
            )
        if self.teacher_shift and [len(spec.shape) for spec in variant.inputs] != [4]:
            raise TechniqueError(
                f"teacher_shift={self.teacher_shift} moves images [batch, channels, height, width], and "
                f"{variant.name!r} takes {', '.join(map(str, variant.inputs))}: leave it out"
            )
        if self.alpha > 0 and variant.task != "classification":
            raise TechniqueError(
                f"distillation compares class probabilities, so it is not for {variant.task}, which "
                f"{variant.name!r} does: train a smaller network on the data itself (labkit.train.Train)"
            )

    def match(self, output: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch from the student's and the teacher's logits, [N, C] both, and the labels [N] → []."""
        return distillation_loss(output, answer, target, self.temperature, self.alpha, self.label_smoothing)

    def loss_from(self, teacher: Variant) -> Loss | None:
        """The loss of `fit` in which the teacher answers the same augmented batch; None if it is to be silent."""
        return listening(self.voice_of(teacher), self.heard) if self.alpha > 0 else None

    def voice_of(self, teacher: Variant) -> nn.Module:
        """What answers for the teacher, in PyTorch: with the mean of its second looks, if there are to be any."""
        network = as_module(teacher)
        return MeanOverShifts(network, self.teacher_shift) if self.teacher_shift else network

    def heard(self, output: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        """`match` of logits, where student or teacher may end in a softmax."""
        return self.match(as_logits(output), as_logits(answer), target)

    def on_labels_alone(self) -> Self:
        """The same technique with a silent teacher: what shows how much of the result is the teacher's doing."""
        return dataclasses.replace(self, alpha=0.0, teacher_shift=0)


def as_module(teacher: Variant) -> nn.Module:
    """What answers for a teacher in PyTorch, whether it is a PyTorch variant or an ONNX one."""
    if teacher.format == "onnx":
        from labkit.onnx_graph import open_graph
        from labkit.onnx_graph.as_torch import as_torch

        return as_torch(open_graph(teacher.payload))
    module: nn.Module = teacher.model
    return module
