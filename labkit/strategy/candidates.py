"""Which variants are worth measuring: every technique on its own, and the combinations that pay.

From a trained PyTorch network: the export, int8, zeros, fewer channels, a smaller student, and both of those in int8.
From somebody's ONNX file: what needs no training. Training runs here when it fits the time that is given; otherwise
a variant that was trained beforehand is taken from the zoo, and its lineage says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from labkit.convert import ExportOnnx
from labkit.data import Dataset
from labkit.distill import Distill
from labkit.errors import TechniqueError
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
    variants: list[Variant] = [model]
    skipped: list[tuple[str, str]] = []

    def attempt(technique: Technique, variant: Variant, report: Progress) -> Variant | None:
        started = time.monotonic()
        try:
            result = technique(variant, dataset, report)
        except TechniqueError as error:
            skipped.append((f"{variant.name} + {technique.name}", str(error)))
            narrate(f"  {technique.title}: skipped ({error})")
            return None
        seconds = time.monotonic() - started
        narrate(f"  {technique.title}: {variant.size_bytes:,} → {result.size_bytes:,} bytes, {seconds:.1f} s")
        return result

    for float_variant, report in _float_variants(
        model, dataset, training_seconds, narrate, progress, attempt, skipped
    ):
        exported = (
            attempt(ExportOnnx(), float_variant, report) if float_variant.format == "torch" else float_variant
        )
        if exported is None:
            continue
        if exported is not model:
            variants.append(exported)
        if "prune_magnitude" in [step.technique for step in exported.lineage]:
            continue  # zeros in int8 are as slow and as large as zeros in float32: one of them shows it
        if quantized := attempt(QuantizeInt8(), exported, report):
            variants.append(quantized)
    return Built(tuple(variants), tuple(skipped))


def _float_variants(
    model: Variant,
    dataset: Dataset,
    training_seconds: float,
    narrate: Narrate,
    progress: Progress,
    attempt: Callable[[Technique, Variant, Progress], Variant | None],
    skipped: list[tuple[str, str]],
) -> Iterator[tuple[Variant, Progress]]:
    """The model itself, then its pruned and distilled forms, each with its share of the progress."""
    if model.format != "torch":
        yield model, progress
        return
    yield model, part(progress, 0.0, 0.1)
    if zeros := attempt(PruneMagnitude(), model, part(progress, 0.1, 0.15)):
        yield zeros, part(progress, 0.15, 0.2)
    ready = derived(model)
    for index, technique in enumerate(trained_techniques(model, dataset)):
        report = part(progress, 0.2 + 0.4 * index, 0.6 + 0.4 * index)
        found = next((variant for variant in ready if variant.lineage[-1].technique == technique.name), None)
        needed = None if found else seconds_to_train(technique, model, dataset)
        if found is not None:
            narrate(f"  {technique.title}: {found.size_bytes:,} bytes, trained beforehand, from the zoo")
            yield found, report
        elif needed is not None and needed > training_seconds:
            reason = f"training would take about {needed:.0f} s here, {training_seconds:.0f} s are allowed"
            skipped.append(
                (f"{model.name} + {technique.name}", f"{reason}: give more with --training-seconds")
            )
            narrate(f"  {technique.title}: skipped, {reason}")
        elif made := attempt(technique, model, report):
            yield made, report


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
