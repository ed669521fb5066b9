"""Decoupled distillation: how sure the teacher is, and what it thinks of the other classes, weighed apart.

The divergence between the teacher's probabilities p and the student's falls into two parts (Zhao et al. 2022, eq. 5):

    KL(p_t ‖ p_s) = KL(b_t ‖ b_s) + (1 − p_t[label]) · KL(q_t ‖ q_s)

b is the pair (the label's class, all others together), q the probabilities of the others among themselves. The second
part is what the teacher knows beyond the label, and a teacher who is sure of itself silences it: its factor is how
much the teacher doubts. So the paper replaces the factors 1 and 1 − p_t[label] by two constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from labkit.data import Dataset
from labkit.distill.soft_targets import beside_labels, divergence
from labkit.distill.student import Distill
from labkit.errors import TechniqueError
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class DistillDecoupled(Distill):
    """Train a student on the two parts of the teacher's answer, each with a weight of its own.

    Which part is which goes by the label, so labels are read even with alpha=1.
    """

    name: ClassVar[str] = "distill_decoupled"
    title: ClassVar[str] = "Distillation, the label's class and the others apart"

    label_weight: float = knob(1.0, "the paper's α: of how sure the teacher is", min=0.0, max=100.0)
    others_weight: float = knob(
        2.0, "the paper's β: of the other classes among themselves", min=0.0, max=100.0
    )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError if there are no labels to go by."""
        super().requires(variant, dataset)
        if self.transfer:
            raise TechniqueError(
                f"decoupled distillation goes by the label, and transfer={self.transfer!r} has none: use Distill, "
                "whose soft targets need none"
            )

    def match(self, output: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        """As in `Taught`, with the two parts in place of the divergence."""
        sure, others = decoupled(output, answer, target, self.temperature)
        soft = self.label_weight * sure.mean() + self.others_weight * others.mean()
        return beside_labels(self.temperature**2 * soft, output, target, self.alpha, self.label_smoothing)


def decoupled(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """KL(b_t ‖ b_s) and KL(q_t ‖ q_s) of each sample, at this temperature: ([N], [N]).

    student_logits, teacher_logits: [N, C], C ≥ 2; target: [N] class indices.
    """
    (b_student, q_student), (b_teacher, q_teacher) = (
        _parts(logits / temperature, target) for logits in (student_logits, teacher_logits)
    )
    return divergence(b_teacher, b_student), divergence(q_teacher, q_student)


def _parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of b [N, 2] and of q [N, C − 1]."""
    is_label = one_hot(target, logits.shape[-1]).bool()
    others = logits[~is_label].view(len(logits), -1)
    log_label = logits.log_softmax(-1)[is_label]
    log_others = others.logsumexp(-1) - logits.logsumexp(-1)
    return torch.stack([log_label, log_others], dim=-1), others.log_softmax(-1)
