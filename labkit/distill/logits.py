"""Matching logits: the student is to give the teacher's numbers themselves, before any softmax.

    loss = α · mean over the classes of (z_s − z_t)² / 2 + (1 − α) · cross-entropy(z_s, label)

As the temperature T rises, T² · KL(teacher ‖ student) of `soft_targets` comes to just that, where the logits of either
add up to the same (Hinton, Vinyals and Dean 2015, section 2.1). A softmax forgets what all logits have in common; here
it is learned too. That a small network so taught comes close to a large one was seen this way first (Ba and Caruana
2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from labkit.distill.soft_targets import beside_labels
from labkit.distill.student import Distill


@dataclass(frozen=True)
class DistillLogits(Distill):
    """Train a student to give the teacher's logits as they are, at no temperature."""

    name: ClassVar[str] = "distill_logits"
    title: ClassVar[str] = "Distillation by the teacher's logits"
    idle: ClassVar[tuple[str, ...]] = ("temperature",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_idle("temperature", "logits are matched as they are; leave it out")

    def match(self, output: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        """As in `Taught`, with the squared difference in place of the divergence."""
        return beside_labels(logit_loss(output, answer), output, target, self.alpha, self.label_smoothing)


def logit_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Half of the mean square of the differences. student_logits, teacher_logits: [N, C]; returns []."""
    return (student_logits - teacher_logits).square().mean() / 2
