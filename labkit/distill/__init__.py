"""Distillation: a small network learns from a large one's answers, not only from the labels."""

from __future__ import annotations

from labkit.distill.baseline import beside_baseline
from labkit.distill.decoupled import DistillDecoupled
from labkit.distill.features import DistillAttention, DistillHints
from labkit.distill.logits import DistillLogits
from labkit.distill.other_teacher import Retaught
from labkit.distill.self_taught import DistillSelf
from labkit.distill.soft_targets import Taught, distillation_loss
from labkit.distill.student import Distill
from labkit.distill.unseen import best_offset

__all__ = [
    "Distill",
    "DistillAttention",
    "DistillDecoupled",
    "DistillHints",
    "DistillLogits",
    "DistillSelf",
    "Retaught",
    "Taught",
    "beside_baseline",
    "best_offset",
    "distillation_loss",
]
