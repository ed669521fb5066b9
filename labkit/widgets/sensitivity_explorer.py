"""The sensitivity explorer: choose a sparsity, and see which layers mind losing so many of their weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form
from labkit.widgets.sensitivity_drawing import draw_sensitivity
from labkit.widgets.sensitivity_rows import (
    Curves,
    curves_of,
    sensitivity_says,
    sensitivity_table,
    sparsities_of,
)


class SensitivityExplorer(Explorer):
    """A chart for each layer, and a sparsity to move; every figure was measured before.

    SensitivityExplorer({"magnitude": scan_layers(…), "random": scan_layers(…, criterion="random")}, sparsity=0.9)

    `start` gives the controls (sparsity, criterion) other first values. Raises DataError for scans that are empty or
    not of the same layers.
    """

    name = "sensitivity"

    def __init__(self, scans: Curves, **start: Any) -> None:
        self.layers = curves_of(scans)
        super().__init__(Form(_settings(sparsities_of(self.layers), tuple(scans)), **start))

    def look(self, config: Any) -> Shown:
        """All layers at this sparsity, drawn, said and tabled."""
        asked = self.layers, config.sparsity, config.criterion
        return Shown(
            draw_sensitivity(*asked),
            sensitivity_says(*asked),
            sensitivity_table(self.layers, config.sparsity),
            f"draw_sensitivity(curves_of(scans), {config.sparsity}, {config.criterion!r})",
        )


def _settings(sparsities: tuple[float, ...], criteria: tuple[str, ...]) -> type[Any]:
    middle = sparsities[len(sparsities) // 2]
    fields = [
        ("sparsity", float, knob(middle, text("sensitivity.sparsity"), choices=sparsities)),
        ("criterion", str, knob(criteria[0], text("sensitivity.criterion"), choices=criteria)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("SensitivitySettings", fields, frozen=True, namespace=namespace)
