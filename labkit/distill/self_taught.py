"""Self-distillation: the student is the teacher's twin, begun again at random, and often ends a little above it.

Nothing becomes smaller. What helps is the soft target alone, which says of each image how sure one may be of it
(Furlanello et al. 2018, "Born-Again Neural Networks", section 3). A pipeline of several such steps, each with a seed
of its own, is a sequence of generations: each one's teacher is the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from labkit.data import Dataset
from labkit.distill.student import Distills, fresh
from labkit.errors import TechniqueError
from labkit.variant import Variant


@dataclass(frozen=True)
class DistillSelf(Distills):
    """Train a network of the teacher's own architecture and widths, from random weights, on the teacher's answers."""

    name: ClassVar[str] = "distill_self"
    title: ClassVar[str] = "Self-distillation (a twin, born again)"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the teacher's architecture can be built again."""
        super().requires(variant, dataset)
        if not hasattr(variant.model, "config"):
            raise TechniqueError(
                f"{variant.name!r} is a {type(variant.model).__name__}, and labkit can begin only its own "
                "architectures again: distil it into one of those (labkit.distill.Distill)"
            )

    def fresh_student(self, teacher: Variant) -> nn.Module:
        """The teacher's twin, with random weights."""
        model: Any = teacher.model
        return fresh(model.config, self.seed)
