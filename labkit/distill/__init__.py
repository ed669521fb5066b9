"""Distillation: a small network learns from a large one's answers, not only from the labels."""

from __future__ import annotations

from labkit.distill.soft_targets import Taught, distillation_loss
from labkit.distill.student import Distill

__all__ = ["Distill", "Taught", "distillation_loss"]
