"""The student: a smaller network that is built for the teacher's task and learns from the teacher's answers."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from labkit.data import Dataset, find_dataset, load_unlabelled
from labkit.distill.soft_targets import Taught
from labkit.distill.start import STARTS, copy_weights
from labkit.distill.transfer import with_images_of, without_classes
from labkit.errors import TechniqueError
from labkit.models import MODELS, build
from labkit.progress import Progress
from labkit.technique import knob
from labkit.train import fit
from labkit.variant import TensorSpec, Variant

_WIDTHS = ("channels", "hidden", "stages", "inner")


@dataclass(frozen=True, kw_only=True)
class Distills(Taught):
    """A technique that trains a new network on the answers of the variant that it is given, the teacher.

    The student takes the teacher's inputs, preprocessing and classes. What it learns from is the dataset's training
    images; or those of another dataset (`transfer`), for which alpha must be 1 because they have no labels here; or
    those of some classes only (`without`).
    """

    takes: ClassVar[tuple[str, ...]] = ("torch", "onnx")
    needs_dataset: ClassVar[bool] = True

    epochs: int = knob(12, "passes over the training data", min=1, max=1000)
    transfer: str = knob("", "another dataset to learn from, its labels unread: a name or a path")
    without: str = knob("", "classes of which the student sees no image, such as 3 or 7,8")

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise DataError for a transfer set that is not there, TechniqueError if labels that it lacks were read.

        TechniqueError, too, for an ONNX teacher that answers batches of one size only.
        """
        super().requires(variant, dataset)
        if variant.fixed_batch is not None:
            raise TechniqueError(
                f"{variant.name!r} answers batches of exactly {variant.fixed_batch}, and a student learns from others: "
                "export it with a free batch, such as dynamic_axes={'input': {0: 'batch'}} of torch.onnx.export"
            )
        if self.transfer:
            find_dataset(self.transfer)
        if self.transfer and self.alpha < 1:
            raise TechniqueError(
                f"transfer={self.transfer!r} has no labels for {variant.name!r}'s classes, and alpha={self.alpha} "
                "would read them: set alpha=1.0"
            )
        if self.transfer and self.without:
            raise TechniqueError(
                f"without={self.without!r} goes by labels, and transfer={self.transfer!r} has none: set one of the two"
            )

    def also_reads(self) -> tuple[str, ...]:
        """The digest of the transfer set, of which the fields hold the place alone."""
        return (load_unlabelled(self.transfer).fingerprint(),) if self.transfer else ()

    def instead_of(self, format_: str) -> str:
        """Also that an ONNX teacher, whose layers this technique cannot use, teaches by its answers."""
        advice = super().instead_of(format_)
        return (
            f"{advice}; or let it teach by its answers: labkit.Distill(), --method soft_targets"
            if format_ == "onnx"
            else advice
        )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Build the student, train it under the teacher's eyes, return it; the teacher is its parent."""
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        if self.transfer:
            dataset = with_images_of(dataset, self.transfer)
        if self.without:
            dataset = without_classes(dataset, self.without)
        module: Any = self.fresh_student(variant)
        name = f"{module.config['architecture']}@{dataset.name}+{self.name}"
        student = variant.derive(name, self.step(variant), model=module, format="torch")
        return dataclasses.replace(student, model=self.teach(student, variant, dataset, progress))

    @abstractmethod
    def fresh_student(self, teacher: Variant) -> nn.Module:
        """The student before it has learned anything: it takes the teacher's image and answers with its classes."""

    def teach(self, student: Variant, teacher: Variant, dataset: Dataset, progress: Progress) -> nn.Module:
        """A trained copy of the student's network."""
        return fit(self.recipe(self.epochs), student, dataset, progress, self.loss_from(teacher))


@dataclass(frozen=True)
class Distill(Distills):
    """Train a new, smaller network on the softened answers of the variant that it is given, the teacher.

    `start` says what the student's first weights are.
    """

    name: ClassVar[str] = "distill"
    title: ClassVar[str] = "Distillation into a smaller student"

    student: str = knob("resnet8", "the student's architecture", choices=MODELS)
    width: float = knob(0.5, "share of the architecture's own channels", above=0.0, max=1.0)
    first_stride: int = knob(1, "2: the student computes on a quarter of the pixels", min=1, max=2)
    stem_stride: int = knob(1, "2: a resnet's first layer does so already", min=1, max=2)
    start: str = knob(
        "random", "the student's first weights: random, or every k-th block of its teacher", choices=STARTS
    )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the teacher turns images of one size into one row of numbers each.

        And where the student is to start with the weights of an ONNX teacher, whose layers have other names.
        """
        super().requires(variant, dataset)
        if self.start == "teacher" and variant.format != "torch":
            raise TechniqueError(
                f"start='teacher' copies the layers of a PyTorch network, {variant.name!r} is {variant.format}: "
                "use start='random'"
            )
        shapes = [spec.shape[1:] for spec in (*variant.inputs, *variant.outputs)]
        sizes = [size for shape in shapes for size in shape]
        if [len(shape) for shape in shapes] != [3, 1] or not all(isinstance(size, int) for size in sizes):
            raise TechniqueError(
                "the students turn one image [batch, channels, height, width] of a fixed size into logits "
                f"[batch, classes]; {variant.name!r} has other inputs or outputs: {_shown(variant.inputs)} → "
                f"{_shown(variant.outputs)}"
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
        strides = {"first_stride": self.first_stride, "stem_stride": self.stem_stride}
        smaller |= {name: stride for name, stride in strides.items() if stride > 1}  # one without it says so
        student = fresh({**whole, **smaller}, self.seed)
        if self.start == "teacher":
            copy_weights(teacher, student)
        return student


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def fresh(config: dict[str, Any], seed: int) -> nn.Module:
    """The architecture of `config` with random weights that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config).eval()


def scaled(widths: Any, factor: float) -> Any:
    """Every width in a number, list or dictionary times `factor`, to the nearest multiple of 4 above 0.

    A factor of 1 leaves them as they are.
    """
    if factor == 1:
        return widths
    if isinstance(widths, dict):
        return {name: scaled(value, factor) for name, value in widths.items()}
    if isinstance(widths, list):
        return [scaled(value, factor) for value in widths]
    return max(4, 4 * round(widths * factor / 4))
