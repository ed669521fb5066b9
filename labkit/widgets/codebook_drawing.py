"""A histogram cut into the clusters of a codebook; below it, for every number of levels, the error and the bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.codebook_rows import FEWEST_LEVELS, MOST_LEVELS, Sharing, sharing_says
from labkit.widgets.svg import Axis

WIDTH = 780
_LEFT, _RIGHT = 60, 20
_BARS = 90
_TOP, _HEIGHT = 30, 150
_VALUES = 40  # below the histogram: the values, and what they are called
_CHART_TOP, _CHART_HEIGHT = 316, 150
_MOST_NAMED = 9
_SHADES = (svg.BLUE, "#9ecbe6")
_CURVES: tuple[tuple[str, str, str, str], ...] = (
    ("fixed_bits", "codebook.legend.fixed", svg.DARK, "7 4"),
    ("huffman_bits", "codebook.legend.huffman", svg.GREEN, ""),
    ("entropy", "codebook.legend.entropy", svg.VERMILLION, "2 3"),
)
"""Of each curve: the property of Sharing, its name in the catalogue, its colour and dashes."""


def draw_codebook(sharing: Sharing, sweep: Mapping[int, Sharing], name: str = "") -> str:
    """An SVG document of `sharing`: the clusters on the number line, its error and its bits among those of `sweep`.

    sweep: levels → what they do, from `sweep_levels`. `name` is the tensor's.
    """
    low, high = float(sharing.weights[0]), float(sharing.weights[-1])
    axis = Axis(low, high, _LEFT, WIDTH - _RIGHT)
    middle = WIDTH / 2
    parts = [
        *_draw_histogram(sharing, axis),
        *_draw_values(sharing, axis),
        *svg.bottom_axis(axis, _TOP + _HEIGHT + _VALUES, name or text("grid.axis")),
        *_draw_error(sharing, sweep, Axis(FEWEST_LEVELS, MOST_LEVELS, _LEFT, middle - 20)),
        *_draw_bits(sharing, sweep, Axis(FEWEST_LEVELS, MOST_LEVELS, middle + 46, WIDTH - _RIGHT)),
    ]
    told = [sharing_says(sharing)]
    told += [
        text("codebook.told", value=value, weights=count)
        for value, count in zip(sharing.values.tolist(), sharing.counts.tolist(), strict=True)
    ]
    height = _CHART_TOP + _CHART_HEIGHT + 44
    return svg.document(WIDTH, height, text("codebook.title", name=name).strip(), " ".join(told), parts)


def _draw_histogram(sharing: Sharing, axis: Axis) -> list[str]:
    """Bars of the counts; each cluster in one of two shades, so that neighbours differ."""
    limits = np.linspace(axis.low, axis.high, _BARS + 1)
    cuts = np.unique(np.r_[limits, sharing.edges])  # a bar that two clusters share is drawn in two pieces
    counts, _ = np.histogram(sharing.weights, limits)
    bottom = _TOP + _HEIGHT
    up = Axis(0, float(counts.max()), bottom, _TOP)
    parts = [svg.words(8, _TOP - 12, text("codebook.counts"), bold=True)]
    for tick in up.ticks(4):
        parts.append(svg.line(axis.start, up(tick), axis.end, up(tick), svg.LIGHT))
        parts.append(svg.words(axis.start - 6, up(tick) + 4, f"{tick:g}", "end", 11))
    for left, right in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        place = (left + right) / 2
        count = counts[min(_BARS - 1, int(np.searchsorted(limits, place)) - 1)]
        shade = _SHADES[int(np.searchsorted(sharing.edges, place)) % 2]
        parts.append(
            svg.rect(axis(left), up(count), axis(right) - axis(left) - 0.3, bottom - up(count), shade)
        )
    for edge in sharing.edges.tolist():
        parts.append(svg.line(axis(edge), _TOP, axis(edge), bottom, svg.GREY, 1, "3 3"))
    return [*parts, svg.line(axis.start, bottom, axis.end, bottom)]


def _draw_values(sharing: Sharing, axis: Axis) -> list[str]:
    """A diamond for each value below its cluster; the values themselves where there is room."""
    y, parts = _TOP + _HEIGHT + 13.0, []
    named = len(sharing.values) <= _MOST_NAMED
    for value in sharing.values.tolist():
        x = axis(value)
        parts.append(
            f'<path d="M{x:.1f} {y - 8:.1f}l6 8l-6 8l-6 -8Z" fill="{svg.ORANGE}" stroke="{svg.DARK}"/>'
        )
        if named:
            parts.append(svg.words(x, y + 22, f"{value:.3g}", "middle", 11, bold=True))
    return parts


def _draw_error(sharing: Sharing, sweep: Mapping[int, Sharing], across: Axis) -> list[str]:
    """The squared error at each number of levels, in logarithms."""
    errors = {levels: each.error for levels, each in sweep.items()}
    lowest = 10.0 ** (
        math.floor(math.log10(min(errors.values()))) - 1
    )  # the best codebook may lie below the curve
    up = Axis(lowest, 1.0, _CHART_TOP + _CHART_HEIGHT, _CHART_TOP, log=True)
    curve = [(across(levels), up(error)) for levels, error in errors.items()]
    said = text("codebook.error", error=sharing.error)
    return [
        *_frame(across, up, text("codebook.error.title"), up.ticks(5)),
        svg.polyline(curve, svg.BLUE, 2.4),
        *_mark(across(sharing.levels), up(sharing.error), said, across, -12),
    ]


def _draw_bits(sharing: Sharing, sweep: Mapping[int, Sharing], across: Axis) -> list[str]:
    """The bits of a weight at each number of levels: entries of equal length, Huffman's, and Shannon's bound."""
    up = Axis(0, max(each.fixed_bits for each in sweep.values()), _CHART_TOP + _CHART_HEIGHT, _CHART_TOP)
    parts = _frame(across, up, text("codebook.bits.title"), up.ticks(5))
    for row, (field, said, color, dashes) in enumerate(_CURVES):
        curve = [(across(levels), up(getattr(each, field))) for levels, each in sweep.items()]
        x, y = across.end - 116, _CHART_TOP + _CHART_HEIGHT - 46 + 16 * row
        parts += [
            svg.polyline(curve, color, 2.2, dashes),
            svg.line(x, y - 4, x + 26, y - 4, color, 2.2, dashes),
            svg.words(x + 32, y, text(said), size=11),
        ]
    said = text("codebook.bits", entropy=sharing.entropy)
    return [*parts, *_mark(across(sharing.levels), up(sharing.entropy), said, across, 22)]


def _frame(across: Axis, up: Axis, title: str, ticks: Sequence[float]) -> list[str]:
    """A small chart's title, its grid and its numbers."""
    parts = [svg.words(across.start - 36, _CHART_TOP - 16, title, bold=True)]
    for tick in ticks:
        parts.append(svg.line(across.start, up(tick), across.end, up(tick), svg.LIGHT))
        parts.append(svg.words(across.start - 6, up(tick) + 4, f"{tick:g}", "end", 11))
    return [*parts, *svg.bottom_axis(across, _CHART_TOP + _CHART_HEIGHT, text("codebook.levels"), 8)]


def _mark(x: float, y: float, said: str, across: Axis, below: float) -> list[str]:
    """A ring at the chosen number of levels, with its figure."""
    half = 3.4 * len(said)
    middle = min(max(x, across.start + half), across.end - half)
    return [
        svg.line(x, _CHART_TOP, x, _CHART_TOP + _CHART_HEIGHT, svg.DARK, 1),
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#fff" stroke="{svg.DARK}" stroke-width="2.6"/>',
        svg.words(middle, y + below, said, "middle", 12, bold=True),
    ]
