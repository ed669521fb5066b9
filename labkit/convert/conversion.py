"""`convert`: a model in, the format that the target needs out, with a proof for every hop on the way."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit.convert.converter import Converter, listening
from labkit.convert.edges import find_paths
from labkit.convert.live import as_variant, check_example
from labkit.convert.parity import ParityReport
from labkit.convert.save import save_as
from labkit.data import Dataset, Split
from labkit.doors import door
from labkit.errors import ConfigError, ParityError, TechniqueError, nearest
from labkit.formats import load_file
from labkit.progress import Progress, part, silent
from labkit.technique import knobs
from labkit.variant import Array, Variant


@dataclass(frozen=True)
class Hop:
    """One edge that was taken: which converter, how equal its result is, how long it took, how large it came out."""

    converter: Converter
    report: ParityReport
    seconds: float
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "converter": self.converter.name,
            "config": self.converter.config,
            "seconds": round(self.seconds, 3),
            "size_bytes": self.size_bytes,
            "max_abs_error": self.report.max_abs_error,
            "max_rel_error": self.report.max_rel_error,
            "top1_agreement": self.report.top1_agreement,
            "rows": [dataclasses.asdict(row) for row in self.report.rows],
        }


@dataclass(frozen=True)
class Conversion:
    """The converted model, and the proof of every hop that led to it."""

    variant: Variant
    hops: tuple[Hop, ...]

    @property
    def path(self) -> str:
        """The formats in order, as in "torch → onnx → openvino"."""
        formats = [step.target for step in (hop.converter for hop in self.hops)]
        return " → ".join([self.hops[0].report.reference_format, *formats])

    @door
    def save(self, out: str | Path) -> list[Path]:
        """Write the model to `out`, a file with the format's own ending or a folder (see `save_as`)."""
        return save_as(self.variant, Path(out))

    def table(self) -> str:
        """Each hop with its parity table, as text."""
        parts = []
        for hop in self.hops:
            parts.append(f"{hop.converter.title}: {hop.size_bytes:,} bytes, {hop.seconds:.1f} s")
            parts.append("\n".join(f"  {line}" for line in hop.report.table().splitlines()))
        return "\n".join(parts)


@door
def convert(
    model: Any,
    to: str,
    dataset: Dataset | None = None,
    example: Mapping[str, Array] | Array | None = None,
    progress: Progress | None = None,
    task: str = "classification",
    **settings: Any,
) -> Conversion:
    """Bring a model into the format `to`, and prove after every hop that it is still the same function.

    model: a Variant, a model's file or SavedModel folder, or a live PyTorch module, Keras model or MindSpore Cell
    (the first and last with an `example`, see `as_variant`). dataset: where the proof takes its samples; without one,
    from the example, and without that they are random. task: what a live model does, as regression; a variant and an
    ONNX file of labkit's know it. The shortest path is tried first, the next one where a converter
    on it cannot say what is in this model. settings: fields of the converters on the way, such as opset=18,
    precision="int8", tolerance=1e-3 or keep=True; each goes to every hop that has it.
    Raises ParityError, with the table, if a hop departs; UnavailableError if a package is missing; ConfigError if
    no path leads there, or for an unknown setting.
    """
    if isinstance(model, (str, Path)):
        variant = load_file(model)
    else:
        variant = model if isinstance(model, Variant) else as_variant(model, example, task=task)
    if dataset is None and example is not None:
        dataset = _samples(variant, example)
    refusals = []
    paths = find_paths(variant.format, to)
    _check_settings(settings, paths, variant.format, to)
    for path in paths:
        try:
            return _along(path, variant, dataset, progress or silent, settings)
        except ParityError:
            raise
        except TechniqueError as error:  # a converter met something it cannot say: another way may know how
            refusals.append(error)
    raise refusals[0]


def _along(
    path: Sequence[type[Converter]],
    variant: Variant,
    dataset: Dataset | None,
    progress: Progress,
    settings: Mapping[str, Any],
) -> Conversion:
    hops: list[Hop] = []
    for index, edge in enumerate(path):
        fields = {field.name for field in dataclasses.fields(edge)}
        converter = edge(**{key: value for key, value in settings.items() if key in fields})
        share = part(progress, index / len(path), (index + 1) / len(path), f"{edge.title}: ")
        started = time.perf_counter()
        with listening() as reports:
            variant = converter(variant, dataset, share)
        hops.append(Hop(converter, reports[-1], time.perf_counter() - started, variant.size_bytes))
    return Conversion(variant, tuple(hops))


def _check_settings(
    settings: Mapping[str, Any], paths: Sequence[Sequence[type[Converter]]], source: str, to: str
) -> None:
    known = {field.name for path in paths for edge in path for field in knobs(edge)}
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"no converter from {source} to {to} has a field {key!r}; {nearest(key, known)}"
            )


def _samples(variant: Variant, example: Mapping[str, Array] | Array) -> Dataset:
    """The example as a dataset without targets: the proof goes round in it."""
    given = check_example(example, variant.name)
    if not isinstance(example, Mapping):
        given = dict(zip((spec.name for spec in variant.inputs), given.values(), strict=False))
    target = np.zeros(len(next(iter(given.values()))), np.int64)
    return Dataset("example", variant.task, {"train": Split(given, target)})
