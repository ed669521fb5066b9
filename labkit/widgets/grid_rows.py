"""A few weights on their grid, row by row: what the grid explorer draws and writes into its table.

All arithmetic is `labkit.quantize.arithmetic.grid`'s. A row is what shares a line of the drawing: a channel, or one of
its groups where each group has a grid of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from labkit.errors import ConfigError
from labkit.plots import table_html
from labkit.quantize.arithmetic.grid import Array, Floats, Grid, choose_scale, integer_range, weight_grid
from labkit.quantize.noise import snr_db
from labkit.widgets.catalogue import text

GRANULARITIES = ("per_tensor", "per_channel", "per_group")
SYMMETRIES = ("symmetric", "asymmetric")
MOST_WEIGHTS = 4096
GRID_COLUMNS = ("row", "scale", "zero_point", "levels_used", "largest_error", "snr_db")
_SCALE_BYTES, _ZERO_POINT_BYTES = 4, 1


def as_channels(weights: ArrayLike) -> Floats:
    """Weights [C, ...] as [C, K]; of one axis alone as a single channel [1, K].

    Raises ConfigError for no weights, more than MOST_WEIGHTS, or some that are not finite.
    """
    array = np.asarray(weights, np.float32)
    if not 0 < array.size <= MOST_WEIGHTS or not np.isfinite(array).all():
        raise ConfigError(
            f"weights of shape {array.shape} cannot be drawn: give 1..{MOST_WEIGHTS} finite numbers, such as weight[:4]"
        )
    return array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)


def make_grid(
    weights: ArrayLike,
    bits: int = 8,
    symmetry: str = "symmetric",
    granularity: str = "per_tensor",
    group_size: int = 4,
) -> Grid:
    """The grid that covers weights [C, ...]: signed if symmetric, else unsigned.

    granularity: one for all, one for each channel, or one for each run of `group_size` weights of a channel.
    Raises ConfigError for a word that is none of SYMMETRIES or GRANULARITIES, or bits outside 2..8.
    """
    if symmetry not in SYMMETRIES or granularity not in GRANULARITIES:
        given = f"symmetry={symmetry!r}, granularity={granularity!r}"
        raise ConfigError(f"{given}; allowed: {', '.join(SYMMETRIES)}; {', '.join(GRANULARITIES)}")
    x, grouped = as_channels(weights), granularity == "per_group"
    axis, size = {"per_tensor": (None, 0), "per_channel": (0, 0), "per_group": (1, group_size)}[granularity]
    if symmetry == "symmetric":
        return weight_grid(x, axis, bits, size)
    starts = range(0, x.shape[1], size if grouped else x.shape[1])
    low, high = (
        np.squeeze(each.reduceat(x, starts, 1), () if grouped else 1) for each in (np.minimum, np.maximum)
    )
    if axis is None:
        low, high = low.min(), high.max()
    return Grid(*choose_scale(low, high, bits), bits, False, axis, size)


@dataclass(frozen=True, eq=False)
class Row:
    """Weights [n] that share a line, and their grid of one scale."""

    name: str
    weights: Floats
    grid: Grid

    @property
    def points(self) -> Floats:
        """Every number on the grid [2^bits], the least first."""
        smallest, largest = integer_range(self.grid.bits, self.grid.signed)
        return self.grid.dequantize(np.arange(smallest, largest + 1))

    @property
    def errors(self) -> Array:
        """How far each weight is moved [n], in float64."""
        return self.grid.round(self.weights).astype(np.float64) - self.weights


def grid_rows(weights: ArrayLike, grid: Grid) -> list[Row]:
    """The rows of weights [C, ...] on a grid from `make_grid`, in their order."""
    x = as_channels(weights)
    size = grid.group_size or x.shape[1]
    shape = (len(x), -(-x.shape[1] // size))
    scale = np.broadcast_to(_upright(grid.scale), shape)
    zero_point = np.broadcast_to(_upright(grid.zero_point), shape)
    return [
        Row(
            text("grid.group" if grid.group_size else "grid.channel", channel=channel, group=group),
            x[channel, group * size : (group + 1) * size],
            Grid(scale[channel, group], zero_point[channel, group], grid.bits, grid.signed),
        )
        for channel, group in np.ndindex(shape)
    ]


def grid_figures(weights: ArrayLike, grid: Grid) -> dict[str, Any]:
    """scale, zero_point (None where there are several), largest_error, snr_db and bytes of all weights together."""
    x, rows = as_channels(weights), grid_rows(weights, grid)
    one = grid.scale.size == 1
    packed = -(-x.size * grid.bits // 8)
    return {
        "scale": float(grid.scale.flat[0]) if one else None,
        "zero_point": int(grid.zero_point.flat[0]) if one else None,
        "largest_error": max(float(np.abs(row.errors).max()) for row in rows),
        "snr_db": _snr_db(x, np.concatenate([row.errors for row in rows])),
        "scales": grid.scale.size,
        "bytes": packed + grid.scale.size * (_SCALE_BYTES + _ZERO_POINT_BYTES),
        "float_bytes": x.nbytes,
    }


def grid_table(weights: ArrayLike, grid: Grid) -> str:
    """An HTML table with GRID_COLUMNS: each row of the drawing, and all together."""
    rows: list[dict[str, Any]] = [
        {
            "row": row.name,
            "scale": float(row.grid.scale),
            "zero_point": int(row.grid.zero_point),
            "levels_used": len(np.unique(row.grid.quantize(row.weights))),
            "largest_error": float(np.abs(row.errors).max()),
            "snr_db": _snr_db(row.weights, row.errors),
        }
        for row in grid_rows(weights, grid)
    ]
    return table_html([*rows, {"row": text("grid.all"), **grid_figures(weights, grid)}], GRID_COLUMNS)


def grid_says(weights: ArrayLike, grid: Grid) -> str:
    """The figures in one sentence."""
    figures = grid_figures(weights, grid)
    key = "grid.one" if figures["scales"] == 1 else "grid.several"
    return text("grid.says", **figures, bits=grid.bits, grids=text(key, **figures))


def _upright(values: Array) -> Array:
    """One value a channel [C] as a column [C, 1]; a scalar or [C, G] as it is."""
    return values[:, None] if values.ndim == 1 else values


def _snr_db(x: Array, errors: Array) -> float:
    return snr_db(float(np.square(x, dtype=np.float64).sum()), float(np.square(errors).sum()))
