"""Which variants are worth measuring: every technique on its own, and the combinations that pay.

From a trained PyTorch network: the export, int8, zeros, fewer channels, a smaller student, and both of those in int8.
From somebody's ONNX file: what needs no training. Training runs here when it fits the time that is given; otherwise
a variant that was trained beforehand is taken from the zoo, and its lineage says so.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from labkit.convert import ExportOnnx
from labkit.data import Dataset
from labkit.distill import Distill
from labkit.errors import Cancelled, LabkitError, TechniqueError
from labkit.progress import Progress, part, silent
from labkit.prune import PruneChannels, PruneMagnitude
from labkit.quantize import QuantizeInt8
from labkit.strategy.grid import Built
from labkit.technique import Technique
from labkit.train import Train
from labkit.variant import Variant
from labkit.zoo import derived

Narrate = Callable[[str], None]


def build_variants(
    model: Variant,
    dataset: Dataset,
    training_seconds: float,
    narrate: Narrate,
    progress: Progress = silent,
) -> Built:
    """Everything worth measuring, the model itself first. A technique that does not fit is skipped with its reason."""
    bench = _Bench(dataset, narrate)
    variants = [model]
    for start, end, make in _float_variants(model, bench, training_seconds):
        share = part(progress, start, end)
        source = exported = make(part(share, 0.0, 0.7))
        if source is not None and source.format == "torch":
            exported = bench.attempt(ExportOnnx(), source, part(share, 0.7, 0.85))
        if exported is None:
            continue
        if exported is not model:
            variants.append(exported)
        if "prune_magnitude" in [step.technique for step in exported.lineage]:
            continue  # zeros in int8 are as slow and as large as zeros in float32: one of them shows it
        if quantized := bench.attempt(QuantizeInt8(), exported, part(share, 0.85, 1.0)):
            variants.append(quantized)
    return Built(tuple(variants), tuple(bench.skipped))


@dataclass
class _Bench:
    """Where techniques are tried: what does not work out is noted in `skipped`, (what, why), and told."""

    dataset: Dataset
    narrate: Narrate
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def attempt(self, technique: Technique, variant: Variant, progress: Progress) -> Variant | None:
        """The technique's result, or None if it does not fit this variant and data."""
        started = time.monotonic()
        try:
            result = technique(variant, self.dataset, progress)
        except Cancelled:
            raise
        except LabkitError as error:
            self.skip(technique, variant, str(error))
            return None
        seconds = time.monotonic() - started
        sizes = f"{variant.size_bytes:,} → {result.size_bytes:,} bytes"
        self.narrate(f"  {technique.title}: {sizes}, {seconds:.1f} s")
        return result

    def skip(self, technique: Technique, variant: Variant, reason: str) -> None:
        """Note that a technique is left out, and why."""
        self.skipped.append((f"{variant.name} + {technique.name}", reason))
        self.narrate(f"  {technique.title}: skipped, {reason}")


Make = Callable[[Progress], Variant | None]


def _float_variants(
    model: Variant, bench: _Bench, training_seconds: float
) -> Iterator[tuple[float, float, Make]]:
    """(start, end) on the progress bar, and what makes it: the model itself, zeros, fewer channels, a student."""
    if model.format != "torch":
        yield 0.0, 1.0, lambda progress: model
        return
    yield 0.0, 0.1, lambda progress: model
    yield 0.1, 0.2, lambda progress: bench.attempt(PruneMagnitude(), model, progress)
    makes = [
        make
        for technique in trained_techniques(model, bench.dataset)
        for make in _trained(technique, model, bench, training_seconds)
    ]
    for index, make in enumerate(makes):
        yield 0.2 + 0.8 * index / len(makes), 0.2 + 0.8 * (index + 1) / len(makes), make


def _trained(technique: Technique, model: Variant, bench: _Bench, training_seconds: float) -> list[Make]:
    """All that the zoo has by this technique, trained beforehand; else training it here, if the time allows."""
    ready = [variant for variant in derived(model) if variant.lineage[-1].technique == technique.name]
    if ready:
        return [functools.partial(_from_zoo, technique, variant, bench) for variant in ready]
    return [functools.partial(_train_here, technique, model, bench, training_seconds)]


def _from_zoo(technique: Technique, variant: Variant, bench: _Bench, progress: Progress) -> Variant:
    bench.narrate(f"  {technique.title}: {variant.size_bytes:,} bytes, trained beforehand, from the zoo")
    return variant


def _train_here(
    technique: Technique, model: Variant, bench: _Bench, training_seconds: float, progress: Progress
) -> Variant | None:
    """The technique's result if it fits and the time that is given allows it; else None, with the reason noted."""
    try:
        technique.requires(model, bench.dataset)
        seconds = seconds_to_train(technique, model, bench.dataset)
    except LabkitError as error:
        bench.skip(technique, model, str(error))
        return None
    if seconds <= training_seconds:
        return bench.attempt(technique, model, progress)
    reason = f"training would take about {seconds:.0f} s here, {training_seconds:.0f} s are allowed"
    bench.skip(technique, model, f"{reason}: give more with --training-seconds")
    return None


def trained_techniques(model: Variant, dataset: Dataset) -> tuple[Technique, ...]:
    """Fewer channels, and a student that looks at a quarter of the pixels; it starts as its teacher where it can."""
    student = Distill(width=1.0, first_stride=2, start="teacher", epochs=12)
    try:
        student.requires(model, dataset)
        student.fresh_student(model)
    except TechniqueError:
        student = dataclasses.replace(student, start="random", epochs=20)
    return PruneChannels(round_to=4, fine_tune_epochs=5), student


def seconds_to_train(technique: Technique, model: Variant, dataset: Dataset) -> float:
    """Estimate a training step's full time from a moment of it: fitting the (unpruned) model on 128 samples, twice.

    The first time warms up. An upper bound for pruned and distilled networks, which are smaller.
    """
    probe = Train(epochs=1, max_samples=128, batch_size=64, augment="none")
    short = dataclasses.replace(
        dataset, splits={**dataset.splits, "train": dataset.split("train").take(slice(0, 128))}
    )
    for _ in range(2):
        started = time.monotonic()
        probe(model, short)
        seconds = time.monotonic() - started
    config = technique.config
    epochs = config.get("fine_tune_epochs", config.get("epochs", 0))
    return seconds * float(epochs) * len(dataset.split("train")) / 128
