"""What the conversion panel runs: hop by hop to the format that was asked for, with the proof of each hop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from labkit.convert import Hop, convert, find_path
from labkit.convert.parity import ParityRow
from labkit.data import Dataset, load_dataset
from labkit.progress import Progress, part
from labkit.variant import Variant
from labkit.widgets.catalogue import text
from labkit.zoo import load_model

Rows = list[dict[str, Any]]


class Converting:
    """A dataset to compare on; models are loaded when first needed, and kept."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self._data: Dataset | None = None
        self._models: dict[str, Variant] = {}

    def convert(self, config: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> Rows:
        """Bring `config.model` to the format `config.to`; `show` all comparisons so far after each hop.

        Raises ParityError at the first hop whose error exceeds `config.tolerance`, after it has been shown.
        """
        progress(0.0, config.model)
        if self._data is None:
            self._data = load_dataset(self.dataset)
        if config.model not in self._models:
            self._models[config.model] = load_model(config.model)
        variant = self._models[config.model]
        path, rows = find_path(variant.format, config.to), Rows()
        for index, edge in enumerate(path):
            share = part(progress, index / len(path), (index + 1) / len(path), f"{edge.title}: ")
            made = convert(variant, edge.target, self._data, progress=share, keep=True)
            for hop in made.hops:  # more than one where a converter had to go round
                rows += parity_rows(hop, config.tolerance)
                show(rows)
                hop.report.check(config.tolerance)
            variant = made.variant
        return rows


def parity_rows(hop: Hop, tolerance: float) -> Rows:
    """A hop's comparisons as flat rows, each with its verdict against `tolerance`."""
    name = f"{hop.report.reference_format} → {hop.report.other_format}"
    return [_row(name, row, tolerance) for row in hop.report.rows]


def _row(name: str, row: ParityRow, tolerance: float) -> dict[str, Any]:
    equal = row.max_rel_error <= tolerance
    return {
        "hop": name,
        "batch_size": row.batch_size,
        "max_abs_error": row.max_abs_error,
        "max_rel_error": row.max_rel_error,
        "top1_agreement": row.top1_agreement,
        "tolerance": tolerance,
        "verdict": text("convert.equal" if equal else "convert.departs"),
    }
