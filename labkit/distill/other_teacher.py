"""Another teacher for what is pruned or quantized: a larger network than the one that is being made smaller.

A technique that retrains its result has a teacher at hand, the network before it was changed. It need not be the
best one: a larger network of the same task may know more, and can be named instead.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from labkit.data import Dataset
from labkit.distill.soft_targets import Taught
from labkit.errors import TechniqueError
from labkit.formats import inspect, load_file
from labkit.measure.quality import evaluate
from labkit.onnx_graph.as_torch import OnnxModule
from labkit.statistics import wilson
from labkit.technique import knob
from labkit.train import Loss
from labkit.variant import Step, Variant

_SHIPPED = Path(__file__).parents[1] / "zoo"
_FORMATS = ("torch", "onnx")


@dataclass(frozen=True, kw_only=True)
class Retaught(Taught):
    """A technique that trains what it has made of a variant; the teacher is that variant itself, or `teacher`."""

    alpha: float = knob(0.0, "how much the training listens to the teacher", min=0.0, max=1.0)
    teacher: str = knob(
        "", "who that is: a shipped network, an .onnx file or a saved variant's folder; empty: itself"
    )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError where the other teacher would not be heard, or takes or answers something else.

        ModelFileError where its file is damaged.
        """
        super().requires(variant, dataset)
        if self.teacher and self.alpha == 0:
            raise TechniqueError(f"alpha=0.0 makes teacher={self.teacher!r} a silent one: set alpha above 0")
        teacher = self.teacher_of(variant)
        unsaid = self.teacher and teacher.format == "onnx" and not teacher.preprocessing
        if unsaid and dataset is not None:
            _check_better_than_guessing(teacher, variant, dataset)

    def check_teacher(self) -> None:
        """Raise TechniqueError or ModelFileError now if the other teacher is not there, or damaged."""
        if self.teacher:
            _load(self.teacher)

    def teacher_of(self, variant: Variant) -> Variant:
        """Whose answers the training hears; TechniqueError if they are not about what `variant` is shown."""
        if not self.teacher:
            return variant
        other = _load(self.teacher)
        for what, mine, theirs in zip(
            _SPOKEN, _language(variant, other), _language(other, variant), strict=True
        ):
            if mine != theirs:
                raise TechniqueError(
                    f"{other.name!r} cannot teach {variant.name!r}, they differ in their {what}: {theirs} and {mine}"
                )
        return other

    def loss_from(self, teacher: Variant) -> Loss | None:
        """As in `Taught`, but the other teacher answers, if one is named."""
        return super().loss_from(self.teacher_of(teacher))

    def step(self, *parents: Variant) -> Step:
        """The lineage entry: another teacher is a parent too."""
        others = (_load(self.teacher),) if self.teacher else ()
        return super().step(*parents, *others)

    def on_labels_alone(self) -> Self:
        """With nobody to be heard, nobody is named."""
        return dataclasses.replace(super().on_labels_alone(), teacher="")


_SPOKEN = ("inputs", "outputs", "classes", "preprocessing")


def _language(variant: Variant, other: Variant) -> tuple[Any, ...]:
    """What two variants must have in common if one is to judge the other's answers; names matter among several.

    A file that says nothing of its classes, or of how its images are prepared, has those of the other.
    """
    several = len(variant.inputs) > 1
    inputs = [(spec.name if several else "", spec.dtype, spec.shape[1:]) for spec in variant.inputs]
    outputs = [spec.shape[1:] for spec in variant.outputs]
    is_file = variant.format == "onnx" or isinstance(variant.model, OnnxModule)
    told = variant.preprocessing or (other.preprocessing if is_file else {})
    classes = variant.labels or (other.labels if is_file else ())
    return inputs, outputs, classes, dict(told) if several else list(told.values())


def _check_better_than_guessing(teacher: Variant, variant: Variant, dataset: Dataset) -> None:
    """Raise TechniqueError if a teacher that does not say how its images are prepared only guesses at the variant's."""
    how = dict(zip((spec.name for spec in teacher.inputs), variant.preprocessing.values(), strict=False))
    shown = dataclasses.replace(teacher, preprocessing=how, labels=variant.labels, task=variant.task)
    scores = evaluate(shown, dataset, "validation")
    least, _ = wilson(int(scores.sum()), len(scores))
    if least < 1 / max(2, len(dataset.labels)):
        raise TechniqueError(
            f"teacher {teacher.name!r} is right on {scores.mean():.1%} of what {variant.name!r} is shown, no better "
            "than a guess: it does not say how its images are prepared, and was trained on others; save it with its "
            "preprocessing first: labkit.formats.load_onnx(FILE, preprocessing={INPUT: …}).save(folder)"
        )


def _load(name_or_path: str) -> Variant:
    shipped = _SHIPPED / name_or_path
    path = shipped if os.path.isfile(shipped / "variant.json") else Path(name_or_path)
    if path.suffix.lower() == ".onnx" and os.path.isfile(path):  # unlike Path's, it takes any text
        return load_file(path)
    if not os.path.isfile(path / "variant.json"):
        raise TechniqueError(
            f"teacher={name_or_path[:200]!r} is neither a shipped network, such as resnet20@digits, nor an .onnx file, "
            "nor a saved variant's folder: save it there first, with variant.save(folder)"
        )
    teacher = Variant.load(path)
    if teacher.format not in _FORMATS:
        raise TechniqueError(
            f"teacher={name_or_path!r} is {teacher.format}; a teacher answers in PyTorch: give a variant in "
            f"{' or '.join(_FORMATS)}"
        )
    if teacher.format == "onnx":  # as foreign as anybody's file
        inspect(path, teacher.format, teacher.model)
    return teacher
