"""The clipping explorer: move the threshold over a tensor's histogram, and see rounding and clipping trade places."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from labkit.errors import DataError
from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.clipping_drawing import draw_clipping
from labkit.widgets.clipping_rows import (
    ClippingSweep,
    Seen,
    clipping_says,
    clipping_table,
    power,
    sweep_clipping,
)
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form
from labkit.widgets.grid_rows import SYMMETRIES


class ClippingExplorer(Explorer):
    """Histograms of tensors with the range of every calibrator, and a threshold to move.

    ClippingExplorer(watch(activations(variant, model, names, samples, silent)), bits=4)

    seen: tensor → calibrator → observer, from `watch`. `start` gives the controls (tensor, bits, symmetry, share)
    other first values. Raises DataError for no tensor, or one whose values are all 0.
    """

    name = "clipping"

    def __init__(self, seen: Mapping[str, Seen], **start: Any) -> None:
        if not seen:
            raise DataError("no tensor was watched: give watch() at least one batch")
        for tensor in seen.values():
            power(tensor)
        self.seen = seen
        self._sweeps: dict[tuple[str, int, str], ClippingSweep] = {}
        super().__init__(Form(_settings(tuple(seen)), **start))

    def look(self, config: Any) -> Shown:
        """The histogram and the curve for these settings, drawn, said and tabled."""
        key = (config.tensor, config.bits, config.symmetry)
        symmetric = config.symmetry == "symmetric"
        if key not in self._sweeps:  # the threshold alone asks for nothing new
            self._sweeps[key] = sweep_clipping(self.seen[config.tensor], config.bits, symmetric)
        sweep = self._sweeps[key]
        asked = f"seen[{config.tensor!r}], bits={config.bits}, symmetric={symmetric}"
        return Shown(
            draw_clipping(sweep, config.share, config.tensor),
            clipping_says(sweep, config.share),
            clipping_table(sweep, config.share),
            f"draw_clipping(sweep_clipping({asked}), share={config.share:.2f})",
        )


def _settings(tensors: tuple[str, ...]) -> type[Any]:
    fields = [
        ("tensor", str, knob(tensors[0], text("clipping.tensor"), choices=tensors)),
        ("bits", int, knob(8, text("grid.bits"), min=2, max=8)),
        ("symmetry", str, knob(SYMMETRIES[1], text("clipping.symmetry"), choices=SYMMETRIES)),
        ("share", float, knob(1.0, text("clipping.threshold"), above=0.0, max=1.0)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("ClippingSettings", fields, frozen=True, namespace=namespace)
