"""What the distillation lesson shows at once because it was measured before: students at many temperatures.

    python -m labkit.teach.distilling        # trains them anew, a few minutes, and writes the file

Each student is trained on the first 400 images at one temperature and one alpha, with five seeds, and judged on the
validation images; so are students that learn from the teacher in other ways. The lesson trains some of them again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data import Dataset, load_dataset
from labkit.distill import Distill, DistillAttention, DistillDecoupled, DistillHints
from labkit.errors import ConfigError
from labkit.files import read_json, write_atomically
from labkit.measure.quality import evaluate
from labkit.progress import Progress, part
from labkit.teach.recording import report
from labkit.variant import Variant

FILE = Path(__file__).parent / "distilled_digits.json"
TEACHER, DATASET = "lenet5@digits", "digits"
STUDENT = Distill(
    "lenet5",
    width=0.2,
    epochs=20,
    learning_rate=0.05,
    augment="none",
    max_samples=400,
    temperature=8.0,
    alpha=1.0,
    threads=1,
)
"""A fifth as wide as its teacher: the student of the whole lesson."""
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
ALPHAS = (0.0, 0.25, 0.5, 0.9, 1.0)
SEEDS = (0, 1, 2, 3, 4)
CHECK_SPLIT = "validation"
METHODS = {
    kind.title: kind(**dataclasses.asdict(STUDENT))
    for kind in (Distill, DistillDecoupled, DistillHints, DistillAttention)
}
"""The same student, taught in four ways."""


@dataclass(frozen=True)
class RecordedStudents:
    """Students that differ in their seed alone: how many images of CHECK_SPLIT each gets wrong, in SEEDS' order."""

    temperature: float
    alpha: float
    errors: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean of `errors`."""
        return sum(self.errors) / len(self.errors)


@dataclass(frozen=True)
class Recording:
    """`sweep`: every temperature at every alpha. `methods`: way of teaching → errors. `images`: wrong of so many."""

    images: int
    sweep: tuple[RecordedStudents, ...]
    methods: Mapping[str, tuple[int, ...]]

    def nearest(self, temperature: float, alpha: float) -> RecordedStudents:
        """The recorded students whose settings are closest: alpha first, then the ratio of the temperatures."""

        def distance(each: RecordedStudents) -> tuple[float, float]:
            ratio = max(each.temperature, temperature) / min(each.temperature, temperature)
            return abs(each.alpha - alpha), ratio

        return min(self.sweep, key=distance)


def load_recording(file: Path = FILE) -> Recording:
    """What was recorded; ConfigError if the file cannot be read."""
    document = read_json(file, ConfigError)
    sweep = [RecordedStudents(**{**each, "errors": tuple(each["errors"])}) for each in document["sweep"]]
    methods = {title: tuple(errors) for title, errors in document["methods"].items()}
    return Recording(document["images"], tuple(sweep), methods)


def count_errors(
    technique: Distill, seed: int, teacher: Variant, dataset: Dataset, progress: Progress
) -> int:
    """Train a student with this seed, and count the images of CHECK_SPLIT that it gets wrong."""
    student = dataclasses.replace(technique, seed=seed)(teacher, dataset, progress)
    return int((~evaluate(student, dataset, CHECK_SPLIT).astype(bool)).sum())


def record(teacher: Variant, dataset: Dataset, progress: Progress) -> Recording:
    """Train every student of the recording."""
    settings = [(t, alpha) for alpha in ALPHAS for t in TEMPERATURES if alpha or t == STUDENT.temperature]
    sweep = [dataclasses.replace(STUDENT, temperature=t, alpha=alpha) for t, alpha in settings]
    students = [*sweep, *METHODS.values()]
    counts: list[tuple[int, ...]] = []
    for place, technique in enumerate(students):
        ahead = part(
            progress,
            place / len(students),
            (place + 1) / len(students),
            f"student {place + 1}/{len(students)}: ",
        )
        errors = [
            count_errors(technique, seed, teacher, dataset, part(ahead, i / len(SEEDS), (i + 1) / len(SEEDS)))
            for i, seed in enumerate(SEEDS)
        ]
        counts.append(tuple(errors))
    return Recording(
        len(dataset.split(CHECK_SPLIT)),
        tuple(RecordedStudents(t, alpha, found) for (t, alpha), found in zip(settings, counts, strict=False)),
        dict(zip(METHODS, counts[len(sweep) :], strict=True)),
    )


def main() -> None:
    """Train, and write FILE."""
    from labkit.zoo import load_model

    made: dict[str, Any] = dataclasses.asdict(record(load_model(TEACHER), load_dataset(DATASET), report))
    write_atomically(FILE, (json.dumps(made, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
