"""The same-budget baseline: the student that a distilled one has to beat is itself, trained on the labels alone."""

from __future__ import annotations

from labkit.data import Dataset
from labkit.distill.soft_targets import Taught
from labkit.doors import door
from labkit.errors import TechniqueError
from labkit.progress import Progress, part
from labkit.variant import Variant


@door
def beside_baseline(
    technique: Taught, variant: Variant, dataset: Dataset | None = None, progress: Progress | None = None
) -> tuple[Variant, Variant]:
    """What `technique` makes of `variant`, and what it makes of it with a silent teacher, to be compared pairwise.

    Both begin with the same weights and see the same batches in the same order, at the same rates. Raises
    TechniqueError if the teacher is silent already, and as the technique does.
    """
    if technique.alpha == 0:
        raise TechniqueError(
            f"{technique.name} with alpha=0.0 is the baseline itself: set alpha above 0 to have something beside it"
        )
    taught = technique(variant, dataset, part(progress, 0.0, 0.5, "taught: "))
    alone = technique.on_labels_alone()(variant, dataset, part(progress, 0.5, 1.0, "on labels alone: "))
    return taught, alone
