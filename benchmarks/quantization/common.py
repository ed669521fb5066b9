"""What all parts of the benchmark share: the models, the images, and how two files are held against each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import racing
from benchmarks.quantization import RUNTIMES
from benchmarks.racing import Blocks, Entrant
from labkit.cli.terminal import say
from labkit.convert import ExportOnnx
from labkit.data import Dataset, Split, load_dataset
from labkit.measure.quality import evaluate
from labkit.quantize import QuantizeInt8
from labkit.quantize.calibration.calibrate import pick
from labkit.runtimes import RunOptions, get_runtime
from labkit.task import Scores
from labkit.variant import Variant
from labkit.zoo import load_model, names

DATASET = "fashion-mnist"
CALIBRATION_SAMPLES, BATCH_SIZE = 300, 32
_FEW_IMAGES = 1000


@dataclass(frozen=True)
class Subject:
    """A shipped network as float32 ONNX, with the data that it was trained on."""

    name: str
    variant: Variant
    dataset: Dataset

    @functools.cached_property
    def int8(self) -> dict[str, Variant]:
        """Runtime → what labkit makes for it; all else is as it is unless told otherwise."""
        return {
            runtime: QuantizeInt8(CALIBRATION_SAMPLES, runtime=runtime)(self.variant, self.dataset)
            for runtime in RUNTIMES
        }

    def scores(self, variant: Variant, split: str = "test", runtime: str = "") -> Scores:
        """One score for each image of `split`; in the reference runtime of its format unless another is named."""
        return evaluate(variant, self.dataset, split, get_runtime(runtime) if runtime else None)

    @functools.cached_property
    def float_scores(self) -> Scores:
        """Of the float model, on test."""
        return self.scores(self.variant)

    def loss(self, variant: Variant) -> dict[str, Any]:
        """Points lost on test against the float model, with the paired interval: part of a row."""
        return self.behind("drop_pp", self.float_scores, self.scores(variant))

    def behind(self, name: str, baseline: Scores, other: Scores) -> dict[str, Any]:
        """How many points `other` is worse on the same images, and the 95 % interval of that: part of a row."""
        drop, (low, high) = self.dataset.task.drop(self.dataset.task.compare(baseline, other))
        return {name: 100 * drop, f"{name}_ci95": (100 * low, 100 * high), "images": len(other)}

    def calibration(self) -> Split:
        """The 300 images that everybody calibrates on."""
        return pick(self.variant, self.dataset.split("calibration"), CALIBRATION_SAMPLES)


@functools.cache
def subject(model: str, quick: bool = False) -> Subject | None:
    """The shipped network `model`, None if it is not shipped; `quick` takes 1,000 images of validation and of test."""
    if shipped(model) not in names():
        return None
    dataset = load_dataset(DATASET)
    if quick:
        say(f"{model}: the first {_FEW_IMAGES:,} images of validation and of test")
        few = {name: dataset.split(name).take(slice(0, _FEW_IMAGES)) for name in ("validation", "test")}
        dataset = dataclasses.replace(dataset, splits={**dataset.splits, **few})
    return Subject(model, ExportOnnx()(load_model(shipped(model)), dataset), dataset)


def shipped(model: str) -> str:
    """Its name in the zoo."""
    return f"{model}@{DATASET}"


def not_shipped(model: str) -> str:
    """Why there are no figures of it."""
    return f"{shipped(model)} is not shipped: python -m labkit.zoo {shipped(model)} trains it"


def race(
    variants: Mapping[str, tuple[Variant, RunOptions]], runtime: str, subject: Subject, quick: bool
) -> Blocks:
    """Name → block times in ms, interleaved, of a batch of 32 test images, one thread."""
    entrants = {name: Entrant(variant, runtime, options) for name, (variant, options) in variants.items()}
    return racing.race(entrants, subject.dataset, BATCH_SIZE, quick)
