"""The grid on a number line: weights above, the grid's numbers below, an arrow from each to where it is rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from labkit.quantize.arithmetic.grid import Grid, integer_range
from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.grid_rows import Row, as_channels, grid_rows, grid_says
from labkit.widgets.svg import Axis

WIDTH, ROW_HEIGHT = 780, 74
MOST_ROWS, MOST_NUMBERS = 8, 64
_LEFT, _RIGHT, _TOP, _BOTTOM = 150, 18, 34, 44
_WEIGHTS, _GRID, _INTEGERS = (
    16,
    48,
    66,
)  # how far below the top of a row: weights, the grid's line, its integers
_ROOM = 1.18  # of the largest weight: the axis stays where it is whatever the grid
_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)  # every so many integers one is written
_LABEL_WIDTH, _ERROR_WIDTH = 24, 150  # pixels that the words need


def draw_grid(weights: ArrayLike, grid: Grid, name: str = "") -> str:
    """An SVG document of weights [C, ...] and the `grid` that rounds them, a line for each channel or group.

    Of more than MOST_ROWS lines, or MOST_NUMBERS weights in one, the first are drawn. `name` is the tensor's.
    """
    rows = grid_rows(weights, grid)
    reach = _ROOM * (float(np.abs(as_channels(weights)).max()) or 1.0)
    axis = Axis(-reach, reach, _LEFT, WIDTH - _RIGHT)
    shown = rows[:MOST_ROWS]
    height = _TOP + len(shown) * ROW_HEIGHT + _BOTTOM
    worst = max(rows, key=lambda row: float(np.abs(row.errors).max()))
    parts = _legend()
    for index, row in enumerate(shown):
        top = _TOP + index * ROW_HEIGHT
        parts += [*_draw_grid(row, axis, top), *_draw_weights(row, axis, top, row is worst)]
    title = text("grid.axis")
    if len(shown) < len(rows):
        title += text("grid.more.rows", shown=len(shown), rows=len(rows))
    if any(len(row.weights) > MOST_NUMBERS for row in shown):
        title += text("grid.more.weights", shown=MOST_NUMBERS)
    bottom = height - _BOTTOM
    zero = svg.line(axis(0), _TOP, axis(0), bottom, svg.LIGHT, 2)
    parts = [zero, *parts, *svg.bottom_axis(axis, bottom, title)]
    told = " ".join([grid_says(weights, grid), *(_tell(row) for row in shown)])
    return svg.document(WIDTH, height, text("grid.title", name=name).strip(), told, parts)


def _draw_grid(row: Row, axis: Axis, top: float) -> list[str]:
    """The row's name, its line, and on it every number of its grid; as many with their integers as there is room."""
    line, zero_point, scale = top + _GRID, int(row.grid.zero_point), float(row.grid.scale)
    smallest, _ = integer_range(row.grid.bits, row.grid.signed)
    seen = [(q, at) for q, at in enumerate(row.points.tolist(), smallest) if axis.low <= at <= axis.high]
    spacing = axis(scale) - axis(0)
    thickness = min(2.2, max(0.6, 0.4 * spacing))
    every = next(step for step in _STEPS if step * spacing >= _LABEL_WIDTH or step == _STEPS[-1])
    return [
        svg.words(8, top + 24, row.name, bold=True),
        svg.words(8, top + 40, f"scale {scale:.4g}", size=11),
        svg.words(8, top + 54, f"zero_point {zero_point}", size=11),
        svg.line(axis.start, line, axis.end, line, svg.GREY),
        svg.stroke("".join(f"M{axis(at):.1f} {line - 6}v12" for _, at in seen), svg.ORANGE, thickness),
        *(
            svg.words(axis(at), top + _INTEGERS, str(q), "middle", 9.5, svg.GREY)
            for q, at in seen
            if (q - zero_point) % every == 0
        ),
    ]


def _draw_weights(row: Row, axis: Axis, top: float, is_worst: bool) -> list[str]:
    """The row's weights, each with an arrow to where it is rounded; in the worst row, the largest error is named."""
    y, drawn = top + _WEIGHTS, row.weights[:MOST_NUMBERS].tolist()
    largest = int(np.abs(row.errors).argmax()) if is_worst else -1
    parts = []
    for index, (x, rounded) in enumerate(zip(drawn, row.grid.round(row.weights).tolist(), strict=False)):
        color, thickness = (svg.VERMILLION, 2.4) if index == largest else (svg.GREY, 1)
        parts.append(svg.arrow(axis(x), y + 4, axis(rounded), top + _GRID - 6, color, thickness))
    parts += [_number(axis(x), y) for x in drawn]
    if 0 <= largest < len(drawn):
        said, x = text("grid.worst", error=abs(float(row.errors[largest]))), axis(drawn[largest])
        anchor = "end" if x > axis.end - _ERROR_WIDTH / 2 else "middle"
        parts.append(svg.words(x, top + 5, said, anchor, 11, svg.VERMILLION, bold=True))
    return parts


def _number(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{svg.BLUE}" stroke="#fff" stroke-width="0.8"/>'


def _legend() -> list[str]:
    y = 14.0
    return [
        _number(_LEFT + 6, y),
        svg.words(_LEFT + 16, y + 4, text("grid.legend.weight")),
        svg.line(_LEFT + 112, y - 6, _LEFT + 112, y + 6, svg.ORANGE, 2.2),
        svg.words(_LEFT + 121, y + 4, text("grid.legend.point")),
        svg.arrow(_LEFT + 352, y - 6, _LEFT + 360, y + 7),
        svg.words(_LEFT + 369, y + 4, text("grid.legend.arrow")),
    ]


def _tell(row: Row) -> str:
    moved = zip(
        row.weights[:MOST_NUMBERS].tolist(), row.grid.round(row.weights[:MOST_NUMBERS]).tolist(), strict=True
    )
    return f"{row.name}: {', '.join(f'{x:.3g} → {nearest:.3g}' for x, nearest in moved)}."
