"""The grid explorer: move the bits, the symmetry and the granularity, and see where each weight comes to lie."""

from __future__ import annotations

import dataclasses
from typing import Any

from numpy.typing import ArrayLike

from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form
from labkit.widgets.grid_drawing import draw_grid
from labkit.widgets.grid_rows import (
    GRANULARITIES,
    SYMMETRIES,
    as_channels,
    grid_says,
    grid_table,
    make_grid,
)

_MOST_GROUP = 64


class GridExplorer(Explorer):
    """A few weights on the number line, and the grid that rounds them.

    GridExplorer(weight[:4], "conv1.weight", bits=3)

    weights: [C, ...], finite; channels along axis 0. `name` is the tensor's; `start` gives the controls (bits,
    symmetry, granularity, group_size) other first values. Raises ConfigError for weights that cannot be drawn.
    """

    name = "grid"

    def __init__(self, weights: ArrayLike, name: str = "", **start: Any) -> None:
        self.weights, self.tensor = as_channels(weights), name
        super().__init__(Form(_settings(self.weights.shape[1]), **start))

    def look(self, config: Any) -> Shown:
        """The grid for these settings, drawn, said and tabled."""
        settings = dataclasses.asdict(config)
        if config.granularity != "per_group":
            del settings["group_size"]
        grid = make_grid(self.weights, **settings)
        given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        return Shown(
            draw_grid(self.weights, grid, self.tensor),
            grid_says(self.weights, grid),
            grid_table(self.weights, grid),
            f"draw_grid(weights, make_grid(weights, {given}))",
        )


def _settings(length: int) -> type[Any]:
    """The controls, for channels of so many weights."""
    most = max(2, min(length, _MOST_GROUP))
    fields = [
        ("bits", int, knob(4, text("grid.bits"), min=2, max=8)),
        ("symmetry", str, knob(SYMMETRIES[0], text("grid.symmetry"), choices=SYMMETRIES)),
        ("granularity", str, knob(GRANULARITIES[0], text("grid.granularity"), choices=GRANULARITIES)),
        ("group_size", int, knob(min(4, most), text("grid.group_size"), min=2, max=most)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("GridSettings", fields, frozen=True, namespace=namespace)
