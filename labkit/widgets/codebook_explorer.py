"""The codebook explorer: move the number of levels, and see the clusters, the error and the bits of a weight."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.codebook_drawing import draw_codebook
from labkit.widgets.codebook_rows import (
    FEWEST_LEVELS,
    MOST_LEVELS,
    STARTS,
    Sharing,
    share_weights,
    sharing_says,
    sharing_table,
    sweep_levels,
)
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form


class CodebookExplorer(Explorer):
    """A tensor's weights, and the few values that they come to share.

    CodebookExplorer(weight, "fc3.weight", levels=4)

    weights: any shape, at most 4,096 that are not zero. `start_with` gives the controls (levels, start) other first
    values. Raises ConfigError for weights that cannot be shown.
    """

    name = "codebook"

    def __init__(self, weights: ArrayLike, name: str = "", **start_with: Any) -> None:
        self.weights, self.tensor = np.asarray(weights), name
        self._sweep = sweep_levels(weights)
        self._found: dict[tuple[int, str], Sharing] = {}
        super().__init__(Form(_settings(), **start_with))

    def look(self, config: Any) -> Shown:
        """The clusters for these settings, drawn, said and tabled."""
        key = (config.levels, config.start)
        if key not in self._found:  # the best codebook takes a while
            self._found[key] = share_weights(self.weights, *key)
        sharing = self._found[key]
        return Shown(
            draw_codebook(sharing, self._sweep, self.tensor),
            sharing_says(sharing),
            sharing_table(sharing),
            f"draw_codebook(share_weights(weights, {config.levels}, {config.start!r}), sweep_levels(weights))",
        )


def _settings() -> type[Any]:
    fields = [
        ("levels", int, knob(4, text("codebook.levels.help"), min=FEWEST_LEVELS, max=MOST_LEVELS)),
        ("start", str, knob("linear", text("codebook.start.help"), choices=tuple(STARTS))),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("CodebookSettings", fields, frozen=True, namespace=namespace)
