"""Distillation: a small network learns from a large one's answers, not only from the labels."""

from __future__ import annotations

from labkit.distill.soft_targets import Distill, distillation_loss

__all__ = ["Distill", "distillation_loss"]
