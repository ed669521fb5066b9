"""A small chart for each layer: how much accuracy is lost as its weights go, by each criterion."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.sensitivity_rows import (
    ORDERS,
    LayerCurves,
    check_scanned,
    sensitivity_says,
    sparsities_of,
)
from labkit.widgets.svg import Axis

_COLUMNS = 4
_CELL_WIDTH, _CELL_HEIGHT = 228, 120
_PLOT_WIDTH, _PLOT_HEIGHT = 168, 62
_LEFT, _TOP, _LEGEND_HEIGHT = 44, 34, 34
_LONGEST_NAME = 22
_LINES = ((svg.BLUE, 2.4, ""), (svg.VERMILLION, 1.6, "5 3"), (svg.GREEN, 1.6, "2 3"))
"""Of each criterion: colour, width and dashes."""


def draw_sensitivity(layers: Sequence[LayerCurves], sparsity: float, criterion: str) -> str:
    """An SVG document of `curves_of` some scans: a chart for each layer, `sparsity` marked on the criterion's curve."""
    check_scanned(layers, sparsity, criterion)
    criteria, sparsities = tuple(layers[0].curves), sparsities_of(layers)
    most = max(each.lost_pp(name, s) for each in layers for name in criteria for s in sparsities)
    columns = min(_COLUMNS, len(layers))
    height = _LEGEND_HEIGHT + _CELL_HEIGHT * -(-len(layers) // columns) + 8
    parts = _draw_legend(criteria, sparsity)
    for index, each in enumerate(layers):
        x = _CELL_WIDTH * (index % columns)
        y = _LEGEND_HEIGHT + _CELL_HEIGHT * (index // columns)
        parts += _draw_layer(each, sparsity, criterion, max(most, 1.0), x, y)
    told = [sensitivity_says(layers, sparsity, criterion)]
    for each in layers:
        lost = ", ".join(f"{name} {each.lost_pp(name, sparsity):.1f}" for name in criteria)
        told.append(text("sensitivity.told", layer=each.layer, weights=each.weights, lost=lost))
    width = max(_CELL_WIDTH * columns + 12, 620)
    return svg.document(width, height, text("sensitivity.title"), " ".join(told), parts)


def _draw_legend(criteria: Sequence[str], sparsity: float) -> list[str]:
    parts, x = [], 8.0
    for name, (color, width, dashes) in zip(criteria, _LINES, strict=False):
        said = text(ORDERS[name])
        parts += [svg.line(x, 16, x + 30, 16, color, width, dashes), svg.words(x + 36, 20, said)]
        x += 64 + 6.4 * len(said)
    marked = text("sensitivity.marked", sparsity=sparsity)
    return [*parts, svg.line(x + 6, 8, x + 6, 24, svg.DARK, 1.2), svg.words(x + 14, 20, marked)]


def _draw_layer(
    each: LayerCurves, sparsity: float, criterion: str, most: float, left: float, top: float
) -> list[str]:
    """The layer's curves over the sparsity, points lost downwards, and how much is lost at the marked one."""
    across = Axis(0.0, 1.0, left + _LEFT, left + _LEFT + _PLOT_WIDTH)
    down = Axis(0.0, most, top + _TOP, top + _TOP + _PLOT_HEIGHT)
    parts = [
        svg.words(left + 8, top + 14, svg.shorten(each.layer, _LONGEST_NAME), bold=True),
        svg.words(left + 8, top + 28, text("sensitivity.weights", weights=each.weights), size=11),
    ]
    for tick in down.ticks(3):
        parts.append(svg.line(across.start, down(tick), across.end, down(tick), svg.LIGHT))
        parts.append(svg.words(across.start - 5, down(tick) + 4, f"−{tick:.0f}" if tick else "0", "end", 10))
    for tick in (0.0, 0.5, 1.0):
        parts.append(svg.words(across(tick), down.end + 14, f"{tick:.0%}", "middle", 10))
    for curve, (color, width, dashes) in zip(each.curves.values(), _LINES, strict=False):
        points = [(0.0, 0.0), *((s, 100 * row.drop) for s, row in sorted(curve.items()))]
        parts.append(svg.polyline([(across(s), down(lost)) for s, lost in points], color, width, dashes))
    lost = each.lost_pp(criterion, sparsity)
    x, y = across(sparsity), down(lost)
    said = text("sensitivity.change", change_pp=0.0 - lost)
    return [
        *parts,
        svg.line(x, down.start - 4, x, down.end, svg.DARK, 1.2),
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="#fff" stroke="{svg.DARK}" stroke-width="2.2"/>',
        svg.words(across.end, top + 28, said, "end", 12, svg.DARK, bold=True),
    ]
