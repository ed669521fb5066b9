"""What all parts of the benchmark share: the models, the images, and how two files are held against each other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.convert import ExportOnnx
from labkit.data import Dataset, Split, load_dataset
from labkit.measure import Protocol
from labkit.measure.quality import evaluate
from labkit.measure.timing import Timed, time_sessions
from labkit.quantize.calibration.calibrate import pick
from labkit.runtimes import RunOptions, get_runtime
from labkit.statistics import Interval, ratio_interval
from labkit.task import Scores
from labkit.variant import Variant
from labkit.zoo import load_model, names

MODELS = ("resnet20", "mobilenet", "vit")
RUNTIMES = ("onnxruntime", "openvino")
DATASET = "fashion-mnist"
CALIBRATION_SAMPLES, BATCH_SIZE = 300, 32
Figures = dict[str, float | None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A shipped network as float32 ONNX, with the data that it was trained on."""

    name: str
    variant: Variant
    dataset: Dataset

    @functools.cached_property
    def scores(self) -> Scores:
        """Of the float model, on test."""
        return evaluate(self.variant, self.dataset, "test")

    def drop_pp(self, variant: Variant) -> tuple[float, Interval]:
        """Points lost on test against the float model, with the paired interval."""
        return paired_pp(self.dataset, self.scores, evaluate(variant, self.dataset, "test"))

    def calibration(self) -> Split:
        """The 300 images that everybody calibrates on."""
        return pick(self.variant, self.dataset.split("calibration"), CALIBRATION_SAMPLES)


def paired_pp(dataset: Dataset, baseline: Scores, other: Scores) -> tuple[float, Interval]:
    """How many points `other` is worse, and the 95 % interval of that."""
    drop, (low, high) = dataset.task.drop(dataset.task.compare(baseline, other))
    return 100 * drop, (100 * low, 100 * high)


@functools.cache
def subject(model: str, quick: bool = False) -> Subject | None:
    """The shipped network `model`, or None if it is not shipped; `quick` takes a tenth of the test images."""
    name = f"{model}@{DATASET}"
    if name not in names():
        return None
    dataset = load_dataset(DATASET)
    if quick:
        dataset = first(dataset, 1000)
    return Subject(model, ExportOnnx()(load_model(name), dataset), dataset)


def first(dataset: Dataset, count: int) -> Dataset:
    """The dataset with the first `count` test images only."""
    test = dataset.split("test").take(slice(0, count))
    return dataclasses.replace(dataset, splits={**dataset.splits, "test": test})


def race(
    variants: Mapping[str, tuple[Variant, RunOptions]], runtime: str, subject: Subject, quick: bool
) -> dict[str, np.ndarray[Any, Any]]:
    """Name → block times in ms, interleaved, of a batch of 32 test images."""
    test = subject.dataset.split("test")
    batches = [test.take(slice(i, i + BATCH_SIZE)).inputs for i in range(0, 4 * BATCH_SIZE, BATCH_SIZE)]
    protocol = Protocol.brief() if quick else Protocol(blocks=24, block_ms=60.0)
    with contextlib.ExitStack() as stack:
        timed = {}
        for name, (variant, options) in variants.items():
            session = stack.enter_context(get_runtime(runtime).load(variant, options))
            feeds = [variant.feeds(batch) for batch in batches]
            session.run(feeds[0])
            timed[name] = Timed(session, feeds)
        return {name: timing.block_ms for name, timing in time_sessions(timed, protocol).items()}


def ratio(blocks: Mapping[str, Any], name: str, to: str) -> tuple[float, Interval]:
    """How many times the time of `to` the time of `name` is, with its interval."""
    return ratio_interval(np.log(blocks[name] / blocks[to]))
