"""What the parts on speed share: the dense network, the images, and what a row says of another network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.keep import Row
from benchmarks.pruning.networks import DATASET, DENSE
from labkit.cli.terminal import say
from labkit.convert import ExportOnnx
from labkit.data import Dataset, load_dataset
from labkit.errors import DataError
from labkit.measure.counting import count
from labkit.measure.quality import evaluate
from labkit.task import Scores
from labkit.technique import probe
from labkit.variant import Variant
from labkit.zoo import load_model

FEW_IMAGES = 1000
MOST_DROP_PP = 0.5
NONE_CHOSEN = f"none loses at most {MOST_DROP_PP} points on validation"


@dataclass(frozen=True)
class Subject:
    """The dense network, as a module and as float32 ONNX, with the data that it was trained on."""

    module: Variant
    dataset: Dataset

    @functools.cached_property
    def file(self) -> Variant:
        """As float32 ONNX."""
        return self.export(self.module)

    def export(self, variant: Variant) -> Variant:
        """A module as float32 ONNX."""
        return ExportOnnx()(variant, self.dataset)

    @functools.cached_property
    def scores(self) -> dict[str, Scores]:
        """Split → the dense network's scores on it."""
        return {split: evaluate(self.module, self.dataset, split) for split in ("validation", "test")}

    def loss(self, variant: Variant, split: str = "test", **options: Any) -> dict[str, Any]:
        """Points lost on `split` against the dense network, with the paired interval: part of a row."""
        own, task = evaluate(variant, self.dataset, split, **options), self.dataset.task
        drop, (low, high) = task.drop(task.compare(self.scores[split], own))
        before = "" if split == "test" else f"{split}_"
        return {
            f"{before}accuracy": task.quality(own),
            f"{before}drop_pp": 100 * drop,
            f"{before}drop_pp_ci95": (100 * low, 100 * high),
            f"{before}images": len(own),
        }

    def size(self, variant: Variant) -> dict[str, Any]:
        """Multiply-adds of one image and parameters, also as shares of the dense network's: part of a row."""
        own, whole = (count(each, probe(each, batch_size=1)) for each in (variant, self.module))
        assert isinstance(own.macs, int) and isinstance(whole.macs, int)  # noqa: S101 - plain convolutions
        return {
            "macs": own.macs,
            "macs_share": own.macs / whole.macs,
            "parameters": own.parameters,
            "parameters_share": own.parameters / whole.parameters,
        }


@functools.cache
def subject(quick: bool) -> Subject | str:
    """The shipped dense network, or why there is none; `quick` takes 1,000 images of validation and of test."""
    try:
        dataset = load_dataset(DATASET)
    except DataError as error:
        return str(error)
    if quick:
        say(f"the first {FEW_IMAGES:,} images of validation and of test")
        few = {name: dataset.split(name).take(slice(0, FEW_IMAGES)) for name in ("validation", "test")}
        dataset = dataclasses.replace(dataset, splits={**dataset.splits, **few})
    return Subject(load_model(DENSE), dataset)


def choose(rows: Sequence[Row], better: Callable[[Row], float]) -> Row | None:
    """The best of those that lose little enough on validation, marked "chosen"; test has no say."""
    able = [row for row in rows if row["validation_drop_pp"] <= MOST_DROP_PP]
    chosen = max(able, key=better, default=None)
    if chosen is not None:
        chosen["chosen"] = True
    return chosen
