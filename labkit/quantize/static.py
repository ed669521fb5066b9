"""Static int8 quantization after training: ONNX in, ONNX out, a quarter of the bytes.

*Static*: the grids of the activations are chosen once, from calibration samples, and written into the file.
At run time nothing is measured any more, and convolutions and additions stay in integers from end to end.

What can go wrong does so silently: nothing in the graph was of the right kind, the calibration samples were
narrower than life, an infinite weight swallowed a grid. So what was quantized is counted and written into
the file, and the result is held against the original on training samples before it is handed out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from labkit.data import Dataset, Split
from labkit.errors import TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.progress import Progress, part
from labkit.quantize.calibrate import calibrate, clip_rates, pick
from labkit.quantize.noise import measure_noise
from labkit.quantize.qdq import WEIGHTED, Plan, insert_qdq, make_plan
from labkit.task import Scores
from labkit.technique import Technique, knob
from labkit.variant import Variant

_CHECK_SAMPLES = 256
_METADATA_KEY = "labkit.quantized"


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantization did: stored in the file, read back by `quantization_report`.

    `left` maps each layer that stayed float to the reason. `clip_rate` is the largest share of an
    activation's values, over training samples, that its grid cannot hold; `clipped` names that activation.
    `drop_pp` is what quality lost on the same samples.
    """

    quantized: int
    layers: int
    left: Mapping[str, str]
    calibration_samples: int
    clip_rate: float
    clipped: str
    drop_pp: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.quantized} of {self.layers} layers in int8, {self.calibration_samples} calibration "
            f"samples, clip rate {self.clip_rate:.2%} at most, drop {self.drop_pp:.2f} points"
        )


@dataclass(frozen=True)
class QuantizeInt8(Technique):
    """Weights and activations in 8 bits, as QDQ nodes that runtimes turn into integer arithmetic."""

    name: ClassVar[str] = "quantize_int8"
    title: ClassVar[str] = "Quantize to int8"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    needs_dataset: ClassVar[bool] = True

    calibration_samples: int = knob(256, "samples that choose the activations' ranges", min=1, max=100_000)
    granularity: str = knob(
        "per_channel", "a scale for each output channel, or for all", choices=("per_channel", "per_tensor")
    )
    percentile: float = knob(100.0, "share of an activation's values kept", min=90.0, max=100.0, unit="%")
    max_drop_pp: float = knob(10.0, "largest drop of quality accepted", min=0.0, max=100.0, unit="points")

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold, plan, calibrate, insert QDQ, and compare with the original.

        Raises TechniqueError if nothing can be quantized, a weight is not finite, or quality drops by more
        than `max_drop_pp`; DataError if the calibration samples are of no use.
        """
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        model = open_graph(variant.payload)
        _check_weights(variant, model)
        fold_batch_norm(model)
        join_bias(model)
        plan = make_plan(model)
        _check_plan(variant, plan)
        samples = pick(variant, dataset.split("calibration"), self.calibration_samples)
        check = pick(variant, dataset.split("train"), _CHECK_SAMPLES)
        grids = sorted(set(plan.tensors.values()))
        ranges = calibrate(variant, model, grids, samples, self.percentile, part(progress, 0.0, 0.5))
        rates = clip_rates(variant, model, ranges, check, part(progress, 0.5, 0.8, "ranges, "))
        clipped = max(rates, key=lambda name: rates[name])

        per_channel = self.granularity == "per_channel"
        quantized = onnx.ModelProto()
        quantized.CopyFrom(model)
        insert_qdq(quantized, plan, ranges, per_channel)
        name = f"{variant.name}+{self.name}"
        result = variant.derive(name, self.step(variant), model=quantized.SerializeToString())
        progress(0.8, "comparing with the original")
        drop_pp = _drop_pp(variant, result, dataset, check)
        if not drop_pp <= self.max_drop_pp:
            worst = measure_noise(variant, model, plan, ranges, check, per_channel)[0]
            raise TechniqueError(
                f"int8 costs {variant.name!r} {drop_pp:.1f} points on {len(check)} training samples, more "
                f"than max_drop_pp={self.max_drop_pp}. Worst is the {worst.kind} {worst.tensor!r} (signal-to-"
                f"noise {worst.snr_db:.0f} dB); {clipped!r} is clipped most ({rates[clipped]:.1%} of its "
                f"values). Try {self._advice(rates[clipped])}"
            )
        report = QuantizationReport(
            quantized=len(plan.layers),
            layers=len(plan.layers) + len(plan.left),
            left=dict(plan.left),
            calibration_samples=len(samples),
            clip_rate=round(rates[clipped], 6),
            clipped=clipped,
            drop_pp=round(drop_pp, 4),
        )
        value = json.dumps(dataclasses.asdict(report), sort_keys=True)
        quantized.metadata_props.add(key=_METADATA_KEY, value=value)
        progress(1.0, str(report))
        return dataclasses.replace(result, model=quantized.SerializeToString())

    def _advice(self, clip_rate: float) -> str:
        if clip_rate > 0.01:
            return "more calibration samples, or such as are more like the real ones; and percentile=100"
        if self.granularity == "per_tensor":
            return "granularity='per_channel'"
        return "percentile=99.99 if a few values are very large; else leave this model in float"


def quantization_report(variant: Variant) -> QuantizationReport:
    """What `QuantizeInt8` wrote into the file; TechniqueError if it did not make this variant."""
    entries = onnx.load_model_from_string(variant.payload).metadata_props if variant.format == "onnx" else ()
    for entry in entries:
        if entry.key == _METADATA_KEY:
            return QuantizationReport(**json.loads(entry.value))
    raise TechniqueError(f"{variant.name!r} was not quantized by labkit: apply labkit.QuantizeInt8() to it")


def _check_weights(variant: Variant, model: onnx.ModelProto) -> None:
    """Raise TechniqueError for a model that is quantized already, or whose weights are not all finite."""
    graph = Graph(model)
    if any("Quantize" in node.op_type or "QLinear" in node.op_type for node in graph.nodes):
        raise TechniqueError(f"{variant.name!r} is quantized already: start from the float model")
    for name in graph.constants:
        values = graph.constant(name)
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            raise TechniqueError(
                f"weight {name!r} of {variant.name!r} holds {bad} values that are NaN or infinite, and no "
                "grid can hold those: find out where the training went wrong"
            )


def _check_plan(variant: Variant, plan: Plan) -> None:
    """Raise TechniqueError if there is nothing to do."""
    if not plan.layers:
        reasons = "; ".join(f"{name!r} stays float: {why}" for name, why in list(plan.left.items())[:3])
        raise TechniqueError(
            f"nothing in {variant.name!r} can be quantized: "
            + (reasons or f"it has no {' or '.join(WEIGHTED)} with a stored weight")
        )


def _drop_pp(before: Variant, after: Variant, dataset: Dataset, samples: Split) -> float:
    """How many points `after` is worse on `samples`: of accuracy, or of the share of variance explained.

    An error has no scale of its own, so it is divided by the variance of the targets: to predict nothing
    but their mean would cost 100 points.
    """
    task = dataset.task
    first, second = _scores(before, dataset, samples), _scores(after, dataset, samples)
    drop, _ = task.drop(task.compare(first, second))
    unit = 1.0 if task.higher_is_better else float(np.var(samples.target)) or 1.0
    return 100 * drop / unit + 0.0  # no −0


def _scores(variant: Variant, dataset: Dataset, samples: Split) -> Scores:
    splits = {**dataset.splits, "calibration": samples}
    return evaluate(variant, dataclasses.replace(dataset, splits=splits), "calibration")
