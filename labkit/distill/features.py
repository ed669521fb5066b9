"""Hints and attention: the student also learns from what lies between the teacher's input and its answer.

A hint is a teacher's feature map, and a small linear layer, trained with the student and thrown away afterwards, turns
the student's map into a guess at it (Romero et al. 2015, "FitNets", eq. 3). Attention transfer asks for less: not
what the teacher sees at a place, but how much it looks there (Zagoruyko and Komodakis 2017, eq. 2).

    loss = α · (T² · KL + weight · Σ_pairs ‖student's − teacher's‖²) + (1 − α) · cross-entropy

FitNets trains first on the hint, then on the soft targets; here both are one loss, as is usual since. Equation 2 of
attention transfer adds up distances; here they are squared, as its authors' code does it, which also divides them by
the number of places (github.com/szagoruyko/attention-transfer, issue 34). `weight` stands in for such factors.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from labkit.data import Dataset
from labkit.distill.layers import Shape, Shown, pair_stages, read_pairs, shapes_of
from labkit.distill.soft_targets import listening
from labkit.distill.student import Distill
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import fit
from labkit.variant import Variant

Lenses = tuple[nn.Module, nn.Module]
"""What turns a student's layer, and its teacher's, into two rows of equal length, to be compared."""


@dataclass(frozen=True)
class DistillFeatures(Distill):
    """What hints and attention share: pairs of layers, and a loss on the difference between them."""

    takes: ClassVar[tuple[str, ...]] = ("torch",)
    idle: ClassVar[tuple[str, ...]] = ("teacher_shift",)

    weight: float = knob(1.0, "of the layers' loss, beside that of the soft targets", above=0.0, max=1e4)
    layers: str = knob("", "pairs STUDENT:TEACHER of layers, with commas; empty: the end of every stage")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_idle("teacher_shift", "layers have no mean over moved images; leave it out")

    def teach(self, student: Variant, teacher: Variant, dataset: Dataset, progress: Progress) -> nn.Module:
        """A trained copy of the student's network; what turned its layers into guesses is thrown away."""
        if self.alpha == 0:
            return super().teach(student, teacher, dataset, progress)
        shapes, theirs = shapes_of(student), shapes_of(teacher)
        pairs = read_pairs(self.layers, shapes, theirs) if self.layers else pair_stages(shapes, theirs)
        if not pairs:
            raise TechniqueError(
                f"{student.name!r} and {teacher.name!r} have no layers that could be compared: name some, "
                "layers=STUDENT:TEACHER"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            lenses = [self.lenses_for(pair, shapes[pair[0]], theirs[pair[1]]) for pair in pairs]
        watched, watching = (
            Shown(variant.model, [pair[side] for pair in pairs], [both[side] for both in lenses])
            for side, variant in enumerate((student, teacher))
        )
        classes = teacher.outputs[0].shape[-1]

        def match(output: Tensor, answer: Tensor, target: Tensor) -> Tensor:
            gap = (output[:, classes:] - answer[:, classes:]).square().sum(1).mean()
            soft = self.heard(output[:, :classes], answer[:, :classes], target)
            return soft + self.alpha * self.weight * gap

        whole = dataclasses.replace(student, model=watched)
        trained: Any = fit(self.recipe(self.epochs), whole, dataset, progress, listening(watching, match))
        network: nn.Module = trained.network
        return network

    @abstractmethod
    def lenses_for(self, pair: tuple[str, str], student: Shape, teacher: Shape) -> Lenses:
        """How a pair is compared; TechniqueError where its shapes make no sense together."""


@dataclass(frozen=True)
class DistillHints(DistillFeatures):
    """Train a student that can also tell, from its feature maps, what the teacher's are.

    Maps [C, H, W] of two sizes are compared at the smaller one; rows [D] and tokens [T, D] as they are.
    """

    name: ClassVar[str] = "distill_hints"
    title: ClassVar[str] = "Distillation with hints (FitNets)"

    def lenses_for(self, pair: tuple[str, str], student: Shape, teacher: Shape) -> Lenses:
        """The student's goes through a linear layer from its channels to the teacher's, a 1×1 convolution for maps."""
        if len(student) != len(teacher) or (len(student) == 2 and student[0] != teacher[0]):
            raise TechniqueError(_unlike(pair, student, teacher))
        if len(student) == 3:
            size = (min(student[1], teacher[1]), min(student[2], teacher[2]))
            return Guess(nn.Conv2d(student[0], teacher[0], 1), size), Guess(nn.Identity(), size)
        return Guess(nn.Linear(student[-1], teacher[-1])), Guess(nn.Identity())


@dataclass(frozen=True)
class DistillAttention(DistillFeatures):
    """Train a student that also looks where the teacher looks; maps of two sizes are compared at the smaller one."""

    name: ClassVar[str] = "distill_attention"
    title: ClassVar[str] = "Distillation with attention transfer"

    weight: float = knob(10.0, "of the maps' loss, beside that of the soft targets", above=0.0, max=1e4)

    def lenses_for(self, pair: tuple[str, str], student: Shape, teacher: Shape) -> Lenses:
        """Both become attention maps."""
        if len(student) != 3 or len(teacher) != 3:
            raise TechniqueError(f"{_unlike(pair, student, teacher)}; attention is of feature maps [C, H, W]")
        size = (min(student[1], teacher[1]), min(student[2], teacher[2]))
        return Attention(size), Attention(size)


class Guess(nn.Module):
    """A layer's output through `layer`, as a row whose squared distance to another is the mean over its elements."""

    def __init__(self, layer: nn.Module, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.layer, self.size = layer, size

    def forward(self, x: Tensor) -> Tensor:
        """Any [N, …] → [N, K]; a map [N, C, H, W] is averaged to `size` first."""
        row = self.layer(x if self.size is None else adaptive_avg_pool2d(x, self.size)).flatten(1)
        return row.float() / row.shape[1] ** 0.5  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Where a layer looks: Σ_c x² at each place, averaged to `size`, as a row of length 1."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [N, C, H, W] → [N, h·w]."""
        return normalize(adaptive_avg_pool2d(x.float().square().sum(1), self.size).flatten(1), dim=1)


def _unlike(pair: tuple[str, str], student: Shape, teacher: Shape) -> str:
    return (
        f"the student's {pair[0]} puts out {list(student)} a sample and the teacher's {pair[1]} {list(teacher)}, which "
        "cannot be compared: name others, layers=STUDENT:TEACHER"
    )
