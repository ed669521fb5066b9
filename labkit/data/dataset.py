"""A Dataset: named arrays in four splits, as they are stored, before any preprocessing.

train         to fit parameters
calibration   a few hundred samples out of train, to choose quantization ranges
validation    to choose between variants
test          looked at once, by the winner
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.doors import door
from labkit.errors import ConfigError, DataError, nearest
from labkit.files import check_text
from labkit.task import Task, get_task
from labkit.variant import Preprocessing, Variant

Array = NDArray[Any]
SPLITS = ("train", "calibration", "validation", "test")
NO_LABEL = -1
"""The target of a sample that has none; a loss that reads it fails."""
_CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Split:
    """Samples with their targets: inputs name → [N, …], target [N] or [N, …]."""

    inputs: Mapping[str, Array]
    target: Array

    def __len__(self) -> int:
        return len(self.target)

    def take(self, indices: Array | slice) -> Split:
        """The samples at `indices`, in that order."""
        return Split({name: array[indices] for name, array in self.inputs.items()}, self.target[indices])

    def fingerprint(self) -> str:
        """SHA-256 of all arrays with their names, types and shapes, computed afresh."""
        found = hashlib.sha256()
        for name, array in (*sorted(self.inputs.items()), ("", self.target)):
            found.update(f"{name}\n{array.dtype} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    @door
    def batches(self, batch_size: int) -> Iterator[Split]:
        """Consecutive batches of `batch_size`; the last may be smaller."""
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be 1 or more")
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))


@dataclass(frozen=True)
class Dataset:
    """Four splits over one task. `checksum` is the SHA-256 of the data as it was read."""

    name: str
    task_name: str
    splits: Mapping[str, Split]
    labels: tuple[str, ...] = ()
    card: str = ""
    checksum: str = ""

    def __post_init__(self) -> None:
        check_text(DataError, self.name, *self.labels)

    def __repr__(self) -> str:
        """Its name, task and sizes; not the arrays."""
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"Dataset({self.name!r}, {self.task_name}, {len(self.labels)} classes: {sizes})"

    @property
    def task(self) -> Task:
        """The Task that scores this data."""
        return get_task(self.task_name)

    @door
    def split(self, name: str) -> Split:
        """One of the four splits; ConfigError for another name."""
        if name not in self.splits:
            raise ConfigError(f"unknown split {name!r}; {nearest(name, SPLITS)}")
        return self.splits[name]

    def sample_shapes(self) -> dict[str, tuple[int, ...]]:
        """Each input's shape without the sample axis."""
        return {name: array.shape[1:] for name, array in self.split("train").inputs.items()}

    def check_classes(self, model: Variant) -> None:
        """Raise DataError unless `model` and this data can mean the same class by a label's number.

        Names may differ (a file of arrays has none but 0, 1, 2, …), their count and their order may not.
        """
        width = model.outputs[0].shape[-1] if model.outputs[0].shape else 1
        count = len(model.labels) or (width if isinstance(width, int) else len(self.labels))
        if self.labels and count != len(self.labels):
            advice = ""
            if count == 1:
                advice = "; to judge one number a sample, store the targets as float32 0 and 1"
            elif count == len(self.labels) - 1 and all(split.target.min() for split in self.splits.values()):
                advice = "; no sample is of class 0: if the targets count from 1, store y - 1"
            raise DataError(
                f"{model.name!r} knows {count} classes, {self.name!r} has {len(self.labels)}: "
                f"they do not belong together{advice}"
            )
        if model.labels != self.labels and set(model.labels) == set(self.labels):
            pairs = enumerate(zip(model.labels, self.labels, strict=True))
            first = next(index for index, (theirs, ours) in pairs if theirs != ours)
            raise DataError(
                f"class {first} is {model.labels[first]!r} to {model.name!r} and {self.labels[first]!r} in "
                f"{self.name!r}: bring the data's classes into the model's order"
            )

    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the only input, if it holds images [N, H, W, C]; DataError otherwise."""
        shapes = list(self.sample_shapes().values())
        if len(shapes) != 1 or len(shapes[0]) != 3:
            raise DataError(
                f"{self.name} does not hold one image a sample; its inputs are {self.sample_shapes()}"
            )
        height, width, channels = shapes[0]
        return (channels, height, width)

    def standardise(self) -> Preprocessing:
        """Preprocessing to zero mean and unit variance per channel, measured on `train`; for [N, H, W, C] images."""
        self.image_shape()
        images = next(iter(self.split("train").inputs.values()))
        scale = 1 / 255 if images.dtype == np.uint8 else 1.0
        pixels = images.reshape(-1, images.shape[-1])
        mean = pixels.mean(axis=0, dtype=np.float64) * scale
        std = np.maximum(pixels.std(axis=0, dtype=np.float64) * scale, 1e-6)
        return Preprocessing(
            scale, tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std), "NCHW"
        )


def make_splits(rest: Split, test: Split | None, validation: Split | None, task: str) -> dict[str, Split]:
    """Complete the four splits: what is not given is taken from `rest`, class by class, always in the same way.

    Test takes a quarter of `rest`, validation a sixth of what remains (at most 5,000), calibration is the
    first 512 of train (a quarter of it if train is small).
    """
    if test is None:
        rest, test = _hold_out(rest, 0.25, len(rest), task)
    if validation is None:
        rest, validation = _hold_out(rest, 1 / 6, 5000, task)
    calibration = rest.take(slice(0, min(_CALIBRATION_SAMPLES, max(1, len(rest) // 4))))
    splits = {"train": rest, "calibration": calibration, "validation": validation, "test": test}
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"too few samples: the {name} split would be empty; bring at least a few dozen")
    return splits


def _hold_out(split: Split, fraction: float, at_most: int, task: str) -> tuple[Split, Split]:
    """Shuffle with a fixed seed and hold out a fraction, of each class alike. Both parts come out shuffled."""
    order = np.random.RandomState(0).permutation(len(split))
    count = min(at_most, round(len(split) * fraction))
    if task == "classification" and split.target.ndim == 1:
        by_class = order[np.argsort(split.target[order], kind="stable")]
        picks = np.linspace(0, len(split) - 1, count).round().astype(int) if count else np.array([], int)
        held = np.zeros(len(split), bool)
        held[by_class[picks]] = True
        return split.take(order[~held[order]]), split.take(order[held[order]])
    return split.take(order[count:]), split.take(order[:count])
