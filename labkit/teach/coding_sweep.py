"""The files behind the sliders of the weight coding lesson, made and measured before.

    python -m labkit.teach.coding_sweep     # makes all of them anew, a few minutes, and writes the file

The network is lenet300 for digits. Each file is pruned, fine-tuned, clustered, fine-tuned again and coded; `measure`
makes one of them, here or in the lesson, and holds it against the float network on the same validation images.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labkit.data import Dataset, load_dataset
from labkit.encode import ClusterWeights, dissect, encode
from labkit.encode.baselines import baselines
from labkit.errors import ConfigError
from labkit.files import read_json, write_atomically
from labkit.measure.quality import evaluate
from labkit.progress import Progress, part, silent
from labkit.prune import PruneMagnitude
from labkit.teach.recording import report
from labkit.variant import Variant
from labkit.widgets.anatomy_rows import Weighed, byte_groups
from labkit.widgets.coding_rows import CodedPoint
from labkit.zoo import load_model

FILE = Path(__file__).parent / "coded_lenet300.json"
MODEL, DATASET, SPLIT = "lenet300@digits", "digits", "validation"
SPARSITIES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.99)
LEVELS = (2, 4, 8, 16)
PRUNE_EPOCHS, CLUSTER_EPOCHS, THREADS = 4, 2, 1


@dataclass(frozen=True)
class CodingRecording:
    """`points`: a file for each of SPARSITIES and LEVELS; and the network that they were made of."""

    float_bytes: int
    float_accuracy_pct: float
    points: tuple[CodedPoint, ...]


def load_coding(file: Path = FILE) -> CodingRecording:
    """What was recorded; ConfigError if the file cannot be read."""
    document = read_json(file, ConfigError)
    points = [
        CodedPoint(**{**point, "drop_ci95": tuple(point["drop_ci95"])}) for point in document.pop("points")
    ]
    return CodingRecording(points=tuple(points), **document)


def prune(variant: Variant, sparsity: float, dataset: Dataset, progress: Progress = silent) -> Variant:
    """The variant with so many of its weights zero, fine-tuned; itself for a sparsity of 0."""
    if not sparsity:
        return variant
    technique = PruneMagnitude(sparsity=sparsity, fine_tune_epochs=PRUNE_EPOCHS, threads=THREADS)
    return technique(variant, dataset, progress)


def code(pruned: Variant, levels: int, dataset: Dataset, progress: Progress = silent) -> Variant:
    """The variant with so many values in each layer, and those trained."""
    technique = ClusterWeights(
        linear_levels=levels, conv_levels=levels, fine_tune_epochs=CLUSTER_EPOCHS, threads=THREADS
    )
    return technique(pruned, dataset, progress)


def weigh(
    variant: Variant, made: Variant, sparsity: float, levels: int, dataset: Dataset
) -> tuple[CodedPoint, bytes]:
    """The file of `made`, and its point: what it takes, and what it has lost to `variant`, in points."""
    content = encode(made)
    ours, theirs = (evaluate(each, dataset, SPLIT) for each in (variant, made))
    drop, (low, high) = dataset.task.drop(dataset.task.compare(ours, theirs))
    accuracy = 100 * dataset.task.quality(theirs)
    groups: Mapping[str, int] = byte_groups(dissect(content))
    point = CodedPoint(sparsity, levels, groups, accuracy, 100 * drop, (100 * low, 100 * high))
    return point, content


def measure(
    variant: Variant, sparsity: float, levels: int, dataset: Dataset, progress: Progress
) -> tuple[CodedPoint, Weighed]:
    """Make one file here: its point, and the file with what other compressors make of the same weights."""
    pruned = prune(variant, sparsity, dataset, part(progress, 0.0, 0.5))
    made = code(pruned, levels, dataset, part(progress, 0.5, 0.8))
    progress(0.8, "coding")
    point, content = weigh(variant, made, sparsity, levels, dataset)
    progress(0.9, "other compressors")
    return point, Weighed(dissect(content), baselines(made))


def record(variant: Variant, dataset: Dataset, progress: Progress) -> CodingRecording:
    """Make and measure a file for each of SPARSITIES and LEVELS."""
    points = []
    for row, sparsity in enumerate(SPARSITIES):
        progress(row / len(SPARSITIES), f"sparsity {sparsity:.0%}")
        pruned = prune(variant, sparsity, dataset)
        for levels in LEVELS:
            made = code(pruned, levels, dataset)
            points.append(weigh(variant, made, sparsity, levels, dataset)[0])
    accuracy = 100 * dataset.task.quality(evaluate(variant, dataset, SPLIT))
    return CodingRecording(variant.size_bytes, accuracy, tuple(points))


def main() -> None:
    """Measure, and write FILE."""
    made = dataclasses.asdict(record(load_model(MODEL), load_dataset(DATASET), report))
    write_atomically(FILE, (json.dumps(made, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
