"""The gate that every quantization passes: what goes in can be quantized, and what comes out is still as good.

What can go wrong does so silently: nothing in the graph was of the right kind, the calibration samples were
narrower than life, an infinite weight swallowed a grid. So what is done is counted, and the result is held
against the original on training samples before it is handed out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.data import Dataset, Split
from labkit.errors import TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph, own_biases, set_constant
from labkit.onnx_graph.attention import simplify
from labkit.progress import Progress
from labkit.quantize.arithmetic.grid import Grid
from labkit.quantize.calibration.calibrate import pick
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.graph.plan import WEIGHTED, Plan, make_plan
from labkit.quantize.graph.qdq import Rounded, insert_qdq
from labkit.quantize.graph.streams import carry_in_steps
from labkit.quantize.noise import Noise, measure_noise
from labkit.quantize.report import QuantizationReport, count_layers, has_report, write_report
from labkit.quantize.rounding.learn import Learned
from labkit.task import Scores
from labkit.technique import Technique, knob
from labkit.variant import Variant

_CHECK_SAMPLES = 256
_CLIPPED_MUCH = 0.01
_SIGNS_OF_INTEGERS = ("quantize", "qlinear", "integer", "nbits")  # in the names of operators


@dataclass(frozen=True, kw_only=True)
class Gated(Technique):
    """A technique whose result is held against the original, if there is a dataset to do that on."""

    max_drop_pp: float = knob(10.0, "largest drop of quality accepted", min=0.0, max=100.0, unit="points")

    def hold(self, variant: Variant, result: Variant, dataset: Dataset | None, advice: str) -> Variant:
        """`result`; raises TechniqueError, with what to try, if it is too much worse than `variant`."""
        if dataset is not None:
            check = check_samples(variant, dataset)
            drop_pp = drop_of_quality_pp(variant, result, dataset, check)
            if not drop_pp <= self.max_drop_pp:
                raise TechniqueError(f"{self.costs(variant, drop_pp, check)}. Try {advice}")
        return result

    def costs(self, variant: Variant, drop_pp: float, check: Split) -> str:
        """How much was lost, for a message."""
        return (
            f"{self.name} costs {variant.name!r} {drop_pp:.1f} points on {len(check)} training samples, more than "
            f"max_drop_pp={self.max_drop_pp}"
        )


@dataclass(frozen=True, kw_only=True)
class Quantizes(Gated):
    """A technique that quantizes an ONNX model: what goes before and what comes after is the same for all."""

    def write(
        self,
        variant: Variant,
        work: Work,
        dataset: Dataset | None,
        progress: Progress,
        clip_rates: Mapping[str, float],
        calibration_samples: int,
    ) -> Variant:
        """The new variant, with its report inside. Raises TechniqueError if quality drops too much."""
        quantized = onnx.ModelProto()
        quantized.CopyFrom(work.model)
        self.insert(quantized, work)
        name = f"{variant.name}+{self.name}"
        result = variant.derive(name, self.step(variant), model=quantized.SerializeToString())
        clipped = max(clip_rates, key=lambda tensor: clip_rates[tensor], default="")
        report = dataclasses.replace(
            count_layers(work.plan, work.weights),
            calibration_samples=calibration_samples,
            clip_rate=round(clip_rates.get(clipped, 0.0), 6),
            clipped=clipped,
        )
        if dataset is not None:
            progress(0.9, "comparing with the original")
            check = check_samples(variant, dataset)
            drop_pp = drop_of_quality_pp(variant, result, dataset, check)
            if not drop_pp <= self.max_drop_pp:
                raise TechniqueError(self._collapse(variant, work, report, drop_pp, check))
            report = dataclasses.replace(report, drop_pp=round(drop_pp, 4))
        write_report(quantized, report)
        progress(1.0, str(report))
        return dataclasses.replace(result, model=quantized.SerializeToString())

    def insert(self, model: onnx.ModelProto, work: Work) -> None:
        """Write what was chosen into `model`, in place: as QDQ nodes, unless a technique knows better."""
        insert_qdq(model, work.plan, work.activations, work.weights)

    def advice(self, worst: Noise, clip_rate: float) -> str:
        """What to try after a collapse."""
        if clip_rate > _CLIPPED_MUCH:
            return "more calibration samples, or such as are more like the real ones; and calibrator='minmax'"
        if getattr(self, "granularity", "") == "per_tensor":
            return "granularity='per_channel'"
        if hasattr(self, "calibrator"):
            return "correct_bias=True, or calibrator='mse'; labkit.QuantizeMixed leaves such a layer in float"
        return "more bits; labkit.QuantizeMixed leaves such a layer in float"

    def _collapse(
        self, variant: Variant, work: Work, report: QuantizationReport, drop_pp: float, check: Split
    ) -> str:
        worst = measure_noise(variant, work.model, work.plan, work.activations, work.weights, check)[0]
        clipping = f"; {report.clipped!r} is clipped most ({report.clip_rate:.1%} of its values)"
        return (
            f"{self.costs(variant, drop_pp, check)}. Worst is the {worst.kind} {worst.tensor!r} (signal-to-noise "
            f"{worst.snr_db:.0f} dB){clipping if report.clipped else ''}. Try {self.advice(worst, report.clip_rate)}"
        )


@dataclass
class Work:
    """A quantization under way: the float graph, folded; the plan; and what was chosen for it so far."""

    model: onnx.ModelProto
    plan: Plan
    activations: Mapping[str, Grid] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, Rounded] = dataclasses.field(default_factory=dict)

    def take(self, learned: Mapping[str, Learned]) -> None:
        """Use learned weights, and the biases that go with them."""
        self.weights = {name: each.weight for name, each in learned.items()}
        for each in learned.values():
            if each.bias is not None:
                set_constant(self.model, each.bias_name, each.bias)

    def carry(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The ranges to make grids of, the float graph rescaled to suit them where the engine is faster so."""
        openvino = self.plan.runtime == "openvino"
        return carry_in_steps(self.model, self.plan, ranges) if openvino else dict(ranges)

    @property
    def tensors(self) -> list[str]:
        """The activations that need a grid of their own."""
        return sorted(set(self.plan.tensors.values()))


def start(variant: Variant, runtime: str | None = None) -> Work:
    """Open `variant`, fold its batch normalisations, and plan.

    With a `runtime`, the graph is simplified and the plan made to please that one; without, for any.
    Raises TechniqueError if it is quantized already, a weight is not finite, or nothing in it can be quantized.
    """
    model = open_graph(variant.payload)
    check_weights(variant, model)
    if runtime is not None:
        simplify(model, with_gemms=runtime == "onnxruntime")
    fold_batch_norm(model)
    join_bias(model)
    own_biases(model)
    plan = make_plan(model, runtime=runtime or "onnxruntime")
    if not plan.layers:
        reasons = "; ".join(f"{name!r} stays float: {why}" for name, why in list(plan.left.items())[:3])
        raise TechniqueError(
            f"nothing in {variant.name!r} can be quantized: "
            + (reasons or f"it has no {' or '.join(WEIGHTED)} with a stored weight")
        )
    return Work(model, plan)


def check_samples(variant: Variant, dataset: Dataset) -> Split:
    """The training samples that a result is held against the original on."""
    return pick(variant, dataset.split("train"), _CHECK_SAMPLES)


def drop_of_quality_pp(before: Variant, after: Variant, dataset: Dataset, samples: Split) -> float:
    """How many points `after` is worse on `samples`: of accuracy, or of the share of variance explained.

    An error has no scale of its own, so it is divided by the variance of the targets: to predict nothing
    but their mean would cost 100 points.
    """
    task = dataset.task
    first, second = score(before, dataset, samples), score(after, dataset, samples)
    drop, _ = task.drop(task.compare(first, second))
    return drop * quality_unit_pp(dataset, samples) + 0.0  # no −0


def quality_unit_pp(dataset: Dataset, samples: Split) -> float:
    """How many points one unit of the task's metric is: 100 of accuracy; of an error, 100 / variance."""
    if dataset.task.higher_is_better:
        return 100.0
    return 100 / (float(np.var(samples.target, axis=0).mean()) or 1.0)


def score(variant: Variant, dataset: Dataset, samples: Split) -> Scores:
    """One score for each of `samples`, by the dataset's task."""
    splits = {**dataset.splits, "calibration": samples}
    return evaluate(variant, dataclasses.replace(dataset, splits=splits), "calibration")


def check_weights(variant: Variant, model: onnx.ModelProto) -> None:
    """Raise TechniqueError for a model that is quantized already, or whose weights are not all finite."""
    graph = Graph(model)
    kinds = {node.op_type.lower() for node in graph.nodes}
    if has_report(model) or any(sign in kind for kind in kinds for sign in _SIGNS_OF_INTEGERS):
        raise TechniqueError(f"{variant.name!r} is quantized already: start from the float model")
    for name in graph.constants:
        values = graph.constant(name)
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            raise TechniqueError(
                f"weight {name!r} of {variant.name!r} holds {bad} values that are NaN or infinite: find out where "
                "the training went wrong"
            )
