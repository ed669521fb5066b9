"""Mixed precision: few bits where nobody minds, more where it hurts.

Each layer may have its weight in float32, in 8 or in 4 bits. With 20 layers that makes three billion models. But
bytes add up over layers exactly, and noises nearly (`sensitivity`), so for any price λ of a byte each layer can
choose alone:

    minimise  noise + λ · bytes        layer by layer

Every λ gives the best model of its size, as far as noises add up (Everett 1963). λ from 0 to infinity walks from
all float to all 4 bits; a handful of models on that walk are then really made, and measured: what was predicted
proposes, what was measured decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from labkit.data import Dataset, Split
from labkit.errors import TechniqueError
from labkit.measure import Protocol
from labkit.measure.front import front
from labkit.measure.timing import Timed, time_sessions
from labkit.onnx_graph import Graph
from labkit.progress import Progress, part
from labkit.quantize.calibration.calibrate import calibrate, pick
from labkit.quantize.gate import Quantizes, quality_unit_pp, score, start
from labkit.quantize.graph.plan import LAYOUTS
from labkit.quantize.graph.qdq import activation_grids, round_weights, weight_grids
from labkit.quantize.report import count_layers, write_report
from labkit.quantize.rounding.learn import ROUNDINGS, learn_alone
from labkit.quantize.sensitivity import FLOAT_BITS, Candidates, Choice, sensitivity
from labkit.runtimes import get_runtime
from labkit.statistics import Interval
from labkit.technique import knob
from labkit.variant import Variant

_FEW_BITS = 4
_SCAN_SAMPLES = 256
_TIMED_BATCH = 32


@dataclass(frozen=True, eq=False)
class Point:
    """One model of the search: which bits each weight has, and what was measured.

    `drop_pp` and its interval are paired with the float model on the same training samples; `latency_ratio` is its
    time over the float model's, None unless a latency was asked for. Below 1 is smaller, or faster.
    """

    variant: Variant
    assignment: Mapping[str, int]
    size_bytes: int
    size_ratio: float
    drop_pp: float
    drop_ci95: Interval
    latency_ratio: float | None = None

    @property
    def counts(self) -> str:
        """How many layers have how many bits, such as "8: 12, 4: 10"."""
        bits = sorted(self.assignment.values(), reverse=True)
        return ", ".join(f"{each}: {bits.count(each)}" for each in dict.fromkeys(bits))


@dataclass(frozen=True)
class QuantizeMixed(Quantizes):
    """Search for the bits of every layer: the smallest model that is good enough, or the best that is small enough."""

    name: ClassVar[str] = "quantize_mixed"
    title: ClassVar[str] = "Mixed precision"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    needs_dataset: ClassVar[bool] = True

    max_drop_pp: float = knob(
        0.5, "largest drop of quality accepted", min=0.0, max=100.0, unit="points", kw_only=True
    )
    max_size_ratio: float = knob(1.0, "largest size accepted, of the float file's", above=0.0, max=1.0)
    max_latency_ratio: float | None = knob(None, "largest time accepted, of the float model's", above=0.0)
    runtime: str = knob("onnxruntime", "the engine to lay files out for, and to measure on", choices=LAYOUTS)
    rounding: str = knob("descent", "how 4-bit weights are rounded", choices=ROUNDINGS)
    points: int = knob(8, "models on the front that are made and measured", min=3, max=40)
    calibration_samples: int = knob(256, "samples for ranges and rounding", min=1, max=100_000)
    check_samples: int = knob(2048, "training samples that quality is measured on", min=16, max=100_000)
    seed: int = knob(0, "all randomness follows from it", min=0, max=2**31 - 1)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Search, and return what the limits choose. Raises TechniqueError, with the nearest miss, if nothing fits."""
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        found = self.search(variant, dataset, progress)
        fits = [point for point in found if self._fits(point)]
        if not fits:
            near = min(
                found, key=lambda point: max(0.0, point.drop_pp - self.max_drop_pp) + 100 * point.size_ratio
            )
            raise TechniqueError(
                f"none of {len(found)} models of {variant.name!r} keeps within max_drop_pp={self.max_drop_pp}, "
                f"max_size_ratio={self.max_size_ratio} and max_latency_ratio={self.max_latency_ratio}; the nearest "
                f"({near.counts}) has size {near.size_ratio:.2f} and loses {near.drop_pp:.2f} points: loosen a limit"
            )
        if self.max_size_ratio < 1:
            return min(fits, key=lambda point: (point.drop_pp, point.size_bytes)).variant
        return min(fits, key=lambda point: (point.size_bytes, point.drop_pp)).variant

    def search(self, variant: Variant, dataset: Dataset, progress: Progress) -> list[Point]:
        """Every model that was made and measured, the smallest first; the uniform ones are always among them."""
        candidates = self.stock(variant, dataset, part(progress, 0.0, 0.3))
        scan = pick(variant, dataset.split("calibration"), _SCAN_SAMPLES)
        choices = sensitivity(variant, candidates, scan, (8, _FEW_BITS), part(progress, 0.3, 0.7))
        assignments = propose(choices, self.points)
        check = pick(variant, dataset.split("train"), self.check_samples)
        return self.measure(variant, candidates, assignments, dataset, check, part(progress, 0.7, 1.0))

    def stock(self, variant: Variant, dataset: Dataset, progress: Progress) -> Candidates:
        """Ranges of all activations, and each weight in 8 and in 4 bits."""
        work = start(variant, self.runtime)
        samples = pick(variant, dataset.split("calibration"), self.calibration_samples)
        found = calibrate(
            variant, work.model, work.tensors, samples, "minmax", None, part(progress, 0.0, 0.3, "ranges, ")
        )
        grids = activation_grids(
            work.carry({name: each.range for name, each in found.items()}), signed=work.plan.signed
        )
        graph = Graph(work.model)
        integers = round_weights(graph, weight_grids(graph, work.plan, grids))
        few = weight_grids(graph, work.plan, grids, _FEW_BITS)
        learned = learn_alone(
            self.rounding, variant, work.model, work.plan.layers, few, samples, part(progress, 0.3, 1.0)
        )
        weights = {8: integers, _FEW_BITS: {name: each.weight for name, each in learned.items()}}
        biases = {each.bias_name: each.bias for each in learned.values() if each.bias is not None}
        return Candidates(
            work.model, work.plan, grids, weights, {8: {}, FLOAT_BITS: {}, _FEW_BITS: biases}, len(samples)
        )

    def measure(
        self,
        variant: Variant,
        candidates: Candidates,
        assignments: Sequence[Mapping[str, int]],
        dataset: Dataset,
        check: Split,
        progress: Progress,
    ) -> list[Point]:
        """Make every model, and measure it on `check`, beside the float model."""
        baseline = score(variant, dataset, check)
        points = []
        for index, assignment in enumerate(assignments):
            progress(index / len(assignments), f"model {index + 1} of {len(assignments)}")
            model, plan, weights = candidates.assemble(assignment)
            drop, interval = dataset.task.drop(
                dataset.task.compare(baseline, score(self._derived(variant, model), dataset, check))
            )
            unit = quality_unit_pp(dataset, check)
            report = count_layers(plan, weights)
            report = dataclasses.replace(
                report, calibration_samples=candidates.samples, drop_pp=round(drop * unit, 4)
            )
            write_report(model, report)
            made = self._derived(variant, model)
            low, high = interval
            points.append(
                Point(
                    made,
                    dict(assignment),
                    made.size_bytes,
                    made.size_bytes / variant.size_bytes,
                    drop * unit,
                    (low * unit, high * unit),
                )
            )
        if self.max_latency_ratio is not None:
            points = self._timed(variant, points, dataset)
        progress(1.0, f"{len(points)} models measured")
        return sorted(points, key=lambda point: point.size_bytes)

    def _derived(self, variant: Variant, model: onnx.ModelProto) -> Variant:
        name = f"{variant.name}+{self.name}"
        return variant.derive(name, self.step(variant), model=model.SerializeToString())

    def _fits(self, point: Point) -> bool:
        in_time = self.max_latency_ratio is None or (point.latency_ratio or 0.0) <= self.max_latency_ratio
        return point.drop_pp <= self.max_drop_pp and point.size_ratio <= self.max_size_ratio and in_time

    def _timed(self, variant: Variant, points: list[Point], dataset: Dataset) -> list[Point]:
        """The points with their times, taken in turns with the float model's."""
        feeds = variant.feeds(pick(variant, dataset.split("calibration"), _TIMED_BATCH).inputs)
        with ExitStack() as stack:
            timed = {}
            for name, each in {
                "float": variant,
                **{str(i): point.variant for i, point in enumerate(points)},
            }.items():
                session = stack.enter_context(get_runtime(self.runtime).load(each))
                session.run(feeds)
                timed[name] = Timed(session, [feeds])
            times = time_sessions(timed, Protocol.brief(), self.seed)
        block = {name: float(np.median(each.block_ms)) for name, each in times.items()}
        return [
            dataclasses.replace(point, latency_ratio=block[str(i)] / block["float"])
            for i, point in enumerate(points)
        ]


def propose(choices: Sequence[Choice], count: int) -> list[dict[str, int]]:
    """Assignments along the walk of λ, about `count` of them evenly spread, and every uniform one.

    Where λ passes the point at which a layer would rather have fewer bits, one layer changes. All of these points
    are walked through, so no assignment on the lower convex hull of (bytes, noise) is missed.
    """
    by_weight: dict[str, list[Choice]] = {}
    for choice in choices:
        by_weight.setdefault(choice.weight, []).append(choice)
    prices = sorted(
        (a.noise - b.noise) / (b.weight_bytes - a.weight_bytes)
        for of_layer in by_weight.values()
        for a in of_layer
        for b in of_layer
        if b.weight_bytes > a.weight_bytes and a.noise > b.noise
    )
    walk: list[dict[str, int]] = []
    for price in [0.0, *(price * (1 + 1e-9) for price in prices)]:
        best = {
            name: min(of_layer, key=lambda each: each.noise + price * each.weight_bytes).bits
            for name, of_layer in by_weight.items()
        }
        if not walk or best != walk[-1]:
            walk.append(best)
    places = np.linspace(0, len(walk) - 1, min(count, len(walk))).round().astype(int)
    uniform = [
        dict.fromkeys(by_weight, bits) for bits in sorted({each.bits for each in choices} - {FLOAT_BITS})
    ]
    unique = [walk[place] for place in dict.fromkeys(places)]
    return unique + [each for each in uniform if each not in unique]


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in size or drop without losing in the other."""
    rows = [{"size_bytes": each.size_bytes, "quality_drop": each.drop_pp, "point": each} for each in points]
    return [row["point"] for row in front(rows, "size_bytes", "quality_drop")]
