"""Static int8 quantization after training: ONNX in, ONNX out, a quarter of the bytes.

*Static*: the grids of the activations are chosen once, from calibration samples, and written into the file.
At run time nothing is measured any more, and convolutions and additions stay in integers from end to end.

One file serves every engine, but each has operators of its own that it is fastest with. `runtime` says which one the
file is laid out for: ONNX Runtime wants every convolution's result on a grid and adds residual branches in integers;
OpenVINO adds them before it rounds (`graph/plan.py`), fastest if they have steps of 1 (`graph/streams.py`), and wants
matrix products to read signed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labkit.data import Dataset
from labkit.onnx_graph import Graph
from labkit.progress import Progress, part
from labkit.quantize.calibration.calibrate import calibrate, clip_rates, pick
from labkit.quantize.calibration.observers import CALIBRATORS, make_observer
from labkit.quantize.gate import Quantizes, check_samples, start
from labkit.quantize.graph.plan import LAYOUTS
from labkit.quantize.graph.qdq import activation_grids, round_weights, weight_grids
from labkit.quantize.rounding.learn import learn_weights
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class QuantizeInt8(Quantizes):
    """Weights and activations in 8 bits, as QDQ nodes that runtimes turn into integer arithmetic."""

    name: ClassVar[str] = "quantize_int8"
    title: ClassVar[str] = "Quantize to int8"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    needs_dataset: ClassVar[bool] = True

    calibration_samples: int = knob(256, "samples that choose the activations' ranges", min=1, max=100_000)
    granularity: str = knob(
        "per_channel", "a scale for each output channel, or for all", choices=("per_channel", "per_tensor")
    )
    calibrator: str = knob("minmax", "how an activation's range is chosen", choices=tuple(CALIBRATORS))
    percentile: float | None = knob(
        None, "share of the values that calibrator='percentile' keeps", min=90.0, max=100.0, unit="%"
    )
    runtime: str = knob(
        "onnxruntime", "the engine to lay the file out for; others run it too", choices=LAYOUTS
    )
    correct_bias: bool = knob(False, "let each bias undo the mean error of its layer's rounding")

    def __post_init__(self) -> None:
        super().__post_init__()
        make_observer(self.calibrator, self.percentile)  # refuses a percentile that would have no effect

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold, plan, calibrate, insert QDQ, and compare with the original.

        Raises TechniqueError if nothing can be quantized, a weight is not finite, or quality drops by more
        than `max_drop_pp`; DataError if the calibration samples are of no use.
        """
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        work = start(variant, self.runtime)
        samples = pick(variant, dataset.split("calibration"), self.calibration_samples)
        check = check_samples(variant, dataset)
        share = part(progress, 0.0, 0.5)
        found = calibrate(variant, work.model, work.tensors, samples, self.calibrator, self.percentile, share)
        ranges = work.carry({name: each.range for name, each in found.items()})
        rates = clip_rates(variant, work.model, ranges, check, part(progress, 0.5, 0.8, "ranges, "))
        work.activations = activation_grids(ranges, signed=work.plan.signed)
        graph, per_channel = Graph(work.model), self.granularity == "per_channel"
        grids = weight_grids(graph, work.plan, work.activations, per_channel=per_channel)
        work.weights = round_weights(graph, grids)
        if self.correct_bias:
            learning = part(progress, 0.8, 0.9, "biases, ")
            layers = work.plan.layers
            work.take(learn_weights("nearest", variant, work.model, layers, grids, samples, learning))
        return self.write(variant, work, dataset, progress, rates, len(samples))
