"""What a lesson shows at once because it was measured before: the bits of every layer of a hard network.

    python -m labkit.teach.recording        # measures anew, a minute or two, and writes the file

The network is mobilenet with its channels rescaled (`Unbalance`): the same function, and 4 bits for every layer ruin
it. Sensitivities are those of `labkit.quantize.sensitivity`, and the assignments of bits those that `QuantizeMixed`
proposes. The lesson makes one of the models again, and holds it against what is recorded.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data import Dataset, load_dataset
from labkit.errors import ConfigError
from labkit.files import read_json, write_atomically
from labkit.progress import Progress, part
from labkit.quantize.calibration.calibrate import pick
from labkit.quantize.equalize import Unbalance
from labkit.quantize.mixed import QuantizeMixed, propose
from labkit.quantize.sensitivity import Candidates, Choice, sensitivity
from labkit.statistics import Interval
from labkit.variant import Variant

FILE = Path(__file__).parent / "mixed_mobilenet.json"
MODEL, DATASET = "mobilenet@digits", "digits"
NETWORK = Unbalance(spread=100.0)
MIXED = QuantizeMixed(rounding="nearest", max_drop_pp=100.0)
"""How the models of the game are made: 8 and 4 bits, each weight rounded to the nearest."""
SCAN_SAMPLES, CHECK_SPLIT = 64, "validation"
WIDTHS = (8, 4)


@dataclass(frozen=True)
class RecordedPoint:
    """A model that was made and measured: weight → bits, the file's bytes, the points lost with their interval."""

    assignment: Mapping[str, int]
    counts: str
    size_bytes: int
    drop_pp: float
    drop_ci95: Interval


@dataclass(frozen=True)
class Recording:
    """`choices`: every layer in every width. `points`: the models on the walk from all 8 to all 4 bits."""

    choices: tuple[Choice, ...]
    points: tuple[RecordedPoint, ...]


def load_recording(file: Path = FILE) -> Recording:
    """What was recorded; ConfigError if the file cannot be read."""
    document = read_json(file, ConfigError)
    points = [
        RecordedPoint(**{**point, "drop_ci95": tuple(point["drop_ci95"])}) for point in document["points"]
    ]
    return Recording(tuple(Choice(**each) for each in document["choices"]), tuple(points))


def measure_point(
    variant: Variant,
    candidates: Candidates,
    assignment: Mapping[str, int],
    dataset: Dataset,
    progress: Progress,
) -> RecordedPoint:
    """Make the model with these bits, and measure it beside the float model on the split CHECK_SPLIT."""
    (point,) = MIXED.measure(variant, candidates, [assignment], dataset, dataset.split(CHECK_SPLIT), progress)
    return RecordedPoint(point.assignment, point.counts, point.size_bytes, point.drop_pp, point.drop_ci95)


def record(variant: Variant, dataset: Dataset, progress: Progress) -> Recording:
    """Measure the sensitivity of every layer, and the models that follow from it."""
    candidates = MIXED.stock(variant, dataset, part(progress, 0.0, 0.1))
    scan = pick(variant, dataset.split("calibration"), SCAN_SAMPLES)
    found = sensitivity(variant, candidates, scan, WIDTHS, part(progress, 0.1, 0.8))
    choices = [each for each in found if each.bits in WIDTHS]
    assignments = propose(choices, MIXED.points)
    points = [
        measure_point(
            variant, candidates, each, dataset, part(progress, 0.8 + 0.2 * i / len(assignments), 1.0)
        )
        for i, each in enumerate(assignments)
    ]
    return Recording(tuple(choices), tuple(sorted(points, key=lambda point: point.size_bytes)))


def main() -> None:
    """Measure, and write FILE."""
    from labkit.convert import ExportOnnx
    from labkit.zoo import load_model

    dataset = load_dataset(DATASET)
    variant = NETWORK(ExportOnnx()(load_model(MODEL), dataset), dataset)
    made: dict[str, Any] = dataclasses.asdict(record(variant, dataset, report))
    write_atomically(FILE, (json.dumps(made, indent=1) + "\n").encode())


def report(fraction: float, message: str) -> None:
    """Progress, told in one line on stderr."""
    print(f"\r{fraction:6.1%} {message}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
