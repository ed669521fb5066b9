"""Quantization-aware training: the network learns to live with the grid it will be put on.

Rounding after training gives each layer an error that no layer was prepared for; with 8 bits that is small, with
4 it is not: 16 values for all the weights of a channel, 16 for an image's activations. Here the rounding happens
during a short training already (`fake.py`), so the weights move to where rounding hurts least, and each grid's
step size is learned with them. ONNX goes in, is carried out in PyTorch while it is trained, and comes out as QDQ.

`activation_bits` holds for what enters a layer with weights, where integers multiply; sums of a residual
network, into which many layers pour, keep 8 bits, and a layer that reads one rounds it once more. The first and
the last layer see what nobody has rounded before, and decide what nobody will correct: `edge_bits`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from onnx import numpy_helper

from labkit.data import Dataset, Split
from labkit.distill import Retaught
from labkit.measure.lock import Patience
from labkit.onnx_graph import join_bias, open_graph
from labkit.progress import Progress, part
from labkit.quantize.calibration.calibrate import pick
from labkit.quantize.gate import Quantizes, Work, start
from labkit.quantize.graph.qdq import Rounded
from labkit.quantize.training.fake_graph import FakeQuantized
from labkit.quantize.training.low_bits import plan_bits
from labkit.technique import knob
from labkit.train import Hook, fit, steps_per_epoch
from labkit.variant import Variant

_BATCH = 32
_FREEZE_AFTER = 0.5


@dataclass(frozen=True)
class QuantizeAware(Retaught, Quantizes):
    """Train an ONNX model on the grid that it will be stored on: 4 bits for weights and activations, or others."""

    name: ClassVar[str] = "quantize_aware"
    title: ClassVar[str] = "Quantization-aware training"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    needs_dataset: ClassVar[bool] = True

    weight_bits: int = knob(8, "bits of a weight", min=2, max=8, unit="bits")
    activation_bits: int = knob(8, "bits of what enters a layer with weights", min=2, max=8, unit="bits")
    edge_bits: int = knob(8, "bits of the first and of the last layer", min=2, max=8, unit="bits")
    epochs: int = knob(2, "passes over the training data", min=1, max=1000)
    granularity: str = knob(
        "per_channel", "a scale for each output channel, or for all", choices=("per_channel", "per_tensor")
    )
    calibration_samples: int = knob(256, "samples that choose where the grids begin", min=1, max=100_000)
    learning_rate: float = knob(0.01, "the highest rate of the schedule", above=0.0, max=10.0, kw_only=True)

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Plan, calibrate, train, and write what was learned as QDQ.

        Raises TechniqueError if nothing can be quantized, an operator cannot be trained, or quality drops by more
        than `max_drop_pp`; DataError if the calibration samples are of no use.
        """
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        work, module = self.fake(variant, dataset, part(progress, 0.0, 0.05))
        trained = self.train(variant, module, dataset, part(progress, 0.05, 0.9))
        _take_over(work, trained)
        used = min(self.calibration_samples, len(dataset.split("calibration")))
        return self.write(variant, work, dataset, progress, {}, used)

    def fake(self, variant: Variant, dataset: Dataset, progress: Progress) -> tuple[Work, FakeQuantized]:
        """The plan and its module, grids started on calibration samples, not yet trained."""
        work = start(variant)
        base = open_graph(variant.payload)
        join_bias(base)
        bits, weight_bits = plan_bits(work, self.weight_bits, self.activation_bits, self.edge_bits)
        per_channel = self.granularity == "per_channel"
        module = FakeQuantized(work.model, base, work.plan, bits, weight_bits, per_channel).eval()
        samples = pick(variant, dataset.split("calibration"), self.calibration_samples)
        _observe(variant, module, samples, progress)
        module.start_grids()
        return work, module

    def train(
        self, variant: Variant, module: FakeQuantized, dataset: Dataset, progress: Progress
    ) -> FakeQuantized:
        """A trained copy of `module`."""
        recipe = dataclasses.replace(self.recipe(self.epochs), precision="float32")
        student = dataclasses.replace(variant, format="torch", model=module)
        steps = steps_per_epoch(self, dataset) * self.epochs
        hook = _after_step(int(_FREEZE_AFTER * steps))
        trained = fit(recipe, student, dataset, progress, self.loss_from(variant), hook)
        assert isinstance(trained, FakeQuantized)  # noqa: S101 - a copy of what went in
        return trained


def _observe(variant: Variant, module: FakeQuantized, samples: Split, progress: Progress) -> None:
    """Let the calibration samples pass through."""
    patience = Patience()
    size = variant.fixed_batch or _BATCH
    for index, batch in enumerate(samples.batches(size)):
        feeds = variant.feeds(batch.inputs)
        with patience.shared(), torch.no_grad():
            module(*(torch.from_numpy(feeds[spec.name]) for spec in variant.inputs))
        progress(min(1.0, (index + 1) * size / len(samples)), "choosing where the grids begin")


def _after_step(freeze_after: int) -> Hook:
    """What is done to the module after each step of the optimizer: scales kept valid, averages frozen in the end."""
    steps = 0

    def after_step(module: torch.nn.Module) -> None:
        nonlocal steps
        assert isinstance(module, FakeQuantized)  # noqa: S101 - `fit` passes the copy that it trains
        steps += 1
        module.frozen = steps >= freeze_after
        module.keep_valid()

    return after_step


def _take_over(work: Work, module: FakeQuantized) -> None:
    """Put what was learned into `work`: constants, weights and biases as they were folded, grids, whole numbers."""
    learned = module.constants()
    for layer in work.plan.layers:
        bias = module.bias(layer)
        learned[layer.weight] = module.weight(layer).detach()
        if bias is not None:
            learned[layer.bias] = bias.detach()
    for tensor in work.model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(learned[tensor.name].numpy(), tensor.name))
    grids = module.grids()
    work.activations = {name: grids[name] for name in work.tensors}
    work.weights = {}
    for layer in work.plan.layers:
        grid = grids[layer.weight]
        work.weights[layer.weight] = Rounded(grid.quantize(learned[layer.weight].numpy()), grid)
