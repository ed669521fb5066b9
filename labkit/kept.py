"""What was made is kept, and not made twice: a recipe that was interrupted goes on behind its last finished step.

A result is found by all that it follows from: technique and settings, what went in with its classes and preprocessing,
and every number of the data. Not by the code: whoever changes that chooses another folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from labkit.data import Dataset
from labkit.progress import Progress
from labkit.technique import Technique
from labkit.variant import Variant


def place_of(folder: Path, technique: Technique, source: Variant, dataset: Dataset | None) -> Path:
    """Where in `folder` the result of `technique` on `source` belongs: a name that says what it is, and a digest."""
    step = technique.step(source)
    recipe = {
        "technique": [step.technique, step.config, step.parents, technique.also_reads()],
        "source": [source.name, source.task, source.labels, sorted(source.preprocessing.items())],
        "dataset": facts_of(dataset),
    }
    return folder / f"{technique.name}-{digest(recipe)}"


def kept(
    folder: Path, technique: Technique, source: Variant, dataset: Dataset | None, progress: Progress
) -> Variant:
    """What `technique` makes of `source`: as it was kept in `folder`, or made now and kept there.

    A module that no config of labkit's architectures describes cannot be rebuilt, and is not kept. Raises
    ModelFileError for a damaged folder, LabkitError for one that cannot be written, and what the technique raises.
    """
    place = place_of(folder, technique, source, dataset)
    if (place / "variant.json").is_file():
        progress(1.0, f"kept in {place}")
        return Variant.load(place)
    made = technique(source, dataset, progress)
    if made.format != "torch" or hasattr(made.model, "config"):
        made.save(place)
    return made


def facts_of(dataset: Dataset | None) -> dict[str, object]:
    """By what a dataset is known again: its name, its classes, and a digest of the numbers of each split."""
    if dataset is None:
        return {}
    splits = {name: split.fingerprint() for name, split in dataset.splits.items()}
    return {"name": dataset.name, "labels": dataset.labels, "splits": splits}


def digest(recipe: object) -> str:
    """Twelve hexadecimal digits of all that JSON can say of `recipe`."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:12]
