"""A histogram, every calibrator's range below it, and what each threshold costs: rounding, clipping, their sum."""

from __future__ import annotations

import math

import numpy as np

from labkit.plots import OKABE_ITO
from labkit.quantize.calibration.histogram import Range
from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.clipping_rows import ClippingSweep, clipping_says
from labkit.widgets.svg import Axis

WIDTH = 780
_LEFT, _RIGHT = 150, 24
_BARS = 160
_HISTOGRAM_TOP, _HISTOGRAM_HEIGHT = 16, 150
_LADDER_STEP = 21
_CURVE_HEIGHT = 190
_HEADROOM = 4  # above the curves, for words
_CURVES: tuple[tuple[str, str, str, float, str], ...] = (
    ("rounding", "clipping.legend.rounding", svg.BLUE, 2, "7 4"),
    ("clipping", "clipping.legend.clipping", svg.VERMILLION, 2, "2 3"),
    ("error", "clipping.legend.error", svg.DARK, 2.6, ""),
)
"""Of each curve: the field of Cut, its name in the catalogue, its colour, width and dashes."""

_HATCH = (
    '<defs><pattern id="labkit-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#f6e3d8"/>'
    f'<line x1="0" y1="0" x2="0" y2="6" stroke="{svg.VERMILLION}" stroke-width="2"/></pattern></defs>'
)


def draw_clipping(sweep: ClippingSweep, share: float = 1.0, name: str = "") -> str:
    """An SVG document of a tensor's histogram, all ranges, and the error of each threshold; `share` is marked.

    share: of the full range, 0..1, that is kept. `name` is the tensor's.
    """
    yours = sweep.at(share)
    ranges = {each: cut.range for each, cut in sweep.chosen.items()}
    ranges[text("clipping.yours", share=share)] = yours.range
    values = [value for each in ranges.values() for value in (each.low, each.high)]
    low, high = min(sweep.histogram.low, *values), max(sweep.histogram.high, *values)
    margin = 0.02 * (high - low)
    axis = Axis(low - margin, high + margin, _LEFT, WIDTH - _RIGHT)
    bottom = _HISTOGRAM_TOP + _HISTOGRAM_HEIGHT
    ladder_bottom = bottom + 12 + _LADDER_STEP * len(ranges)
    top = ladder_bottom + 76
    parts = [
        _HATCH,
        *_draw_histogram(sweep, axis, yours.range),
        *_draw_ladder(ranges, axis, bottom + 12),
        *svg.bottom_axis(axis, ladder_bottom + 4, name or text("grid.axis")),
        *_draw_curves(sweep, share, top),
    ]
    height = top + _CURVE_HEIGHT + 44
    told = [clipping_says(sweep, share)]
    told += [f"{each}: {range_.low:.4g} … {range_.high:.4g}." for each, range_ in ranges.items()]
    return svg.document(WIDTH, height, text("clipping.title", name=name).strip(), " ".join(told), parts)


def _draw_histogram(sweep: ClippingSweep, axis: Axis, kept: Range) -> list[str]:
    """Bars of the logarithm of the counts; those that the range cuts off are hatched."""
    counts, edges = sweep.histogram.counts, sweep.histogram.edges
    limits = np.linspace(axis.low, axis.high, _BARS + 1)
    middles = np.clip((edges[:-1] + edges[1:]) / 2, sweep.histogram.low, sweep.histogram.high)
    heights, _ = np.histogram(middles, limits, weights=counts)
    bottom = _HISTOGRAM_TOP + _HISTOGRAM_HEIGHT
    up = Axis(0.5, 2.0 * float(heights.max()), bottom, _HISTOGRAM_TOP, log=True)
    parts = [svg.words(8, _HISTOGRAM_TOP + 10, text("clipping.counts"), bold=True)]
    parts.append(svg.words(8, _HISTOGRAM_TOP + 25, text("clipping.log"), size=11))
    for tick in up.ticks(5):
        parts.append(svg.line(axis.start, up(tick), axis.end, up(tick), svg.LIGHT))
        parts.append(svg.words(axis.start - 6, up(tick) + 4, f"{tick:,.0f}", "end", 11))
    for count, left, right in zip(heights.tolist(), limits[:-1].tolist(), limits[1:].tolist(), strict=True):
        if count:
            fill = svg.BLUE if right > kept.low and left < kept.high else "url(#labkit-hatch)"
            x, y = axis(left), up(count)
            parts.append(svg.rect(x, y, axis(right) - x - 0.4, bottom - y, fill))
    return [*parts, svg.line(axis.start, bottom, axis.end, bottom)]


def _draw_ladder(ranges: dict[str, Range], axis: Axis, top: float) -> list[str]:
    """A rung for each range, from its low to its high end, and thin lines from there up through the histogram."""
    parts = []
    for index, (name, range_) in enumerate(ranges.items()):
        y, is_yours = top + (index + 0.5) * _LADDER_STEP, index == len(ranges) - 1
        color = svg.DARK if is_yours else OKABE_ITO[index % len(OKABE_ITO)]
        low, high = axis(range_.low), axis(range_.high)
        thickness, dashes = (2.4, "") if is_yours else (1.2, "4 3")
        for x in (low, high):
            parts.append(svg.line(x, _HISTOGRAM_TOP, x, y, color, thickness, dashes))
            parts.append(svg.line(x, y - 6, x, y + 6, color, 2.5))
        parts.append(svg.line(low, y, high, y, color, 4 if is_yours else 2.5))
        parts.append(svg.words(_LEFT - 10, y + 4, name, "end", bold=is_yours))
    return parts


def _draw_curves(sweep: ClippingSweep, share: float, top: float) -> list[str]:
    """Rounding, clipping and their sum at each share of the full range; the least sum and the chosen one are marked."""
    across = Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    totals = [cut.error for cut in sweep.curve.values()]
    lowest = 10.0 ** (math.floor(math.log10(min(totals))) - 1)  # a curve below it is of no account
    up = Axis(lowest, _HEADROOM * max(totals), top + _CURVE_HEIGHT, top, log=True)
    parts = [svg.words(8, top + 10, text("clipping.error"), bold=True)]
    parts += [
        svg.words(8, top + 25 + 14 * row, said, size=11)
        for row, said in enumerate(text("clipping.error.note").split("\n"))
    ]
    for tick in up.ticks(6):
        parts.append(svg.line(across.start, up(tick), across.end, up(tick), svg.LIGHT))
        parts.append(svg.words(across.start - 6, up(tick) + 4, f"{tick:g}", "end", 11))
    x = _LEFT + 12.0
    for name, said, color, width, dashes in _CURVES:
        heights = [(at, getattr(cut, name)) for at, cut in sweep.curve.items()]
        drawn = [(across(at), up(height)) for at, height in heights if height >= lowest]
        label = text(said)
        parts += [svg.polyline(drawn, color, width, dashes)]
        parts.append(svg.line(x, top - 12, x + 32, top - 12, color, width, dashes))
        parts.append(svg.words(x + 38, top - 8, label))
        x += 68 + 6.6 * len(label)
    parts += _mark(sweep, share, across, up, top)
    bottom = svg.bottom_axis(across, top + _CURVE_HEIGHT, text("clipping.share"), 10)
    return [*parts, *bottom]


def _mark(sweep: ClippingSweep, share: float, across: Axis, up: Axis, top: float) -> list[str]:
    """A diamond on the curve's lowest point, a ring and a line at the chosen share, each with its figures."""
    best, yours = sweep.at(sweep.best), sweep.at(share)
    x, y = across(sweep.best), up(best.error)
    parts = [
        f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7Z" fill="{svg.GREEN}" stroke="#fff"/>',
        _beside(
            x, y - 14, text("clipping.mark.best", share=sweep.best, snr_db=best.snr_db), across, svg.GREEN
        ),
    ]
    x, y = across(share), up(yours.error)
    said = text("clipping.mark.yours", share=share, snr_db=yours.snr_db)
    return [
        svg.line(x, top, x, top + _CURVE_HEIGHT, svg.DARK, 1.2),
        *parts,
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#fff" stroke="{svg.DARK}" stroke-width="2.6"/>',
        _beside(x, top + 14, said, across, svg.DARK),
    ]


def _beside(x: float, y: float, said: str, across: Axis, color: str) -> str:
    """Words centred at x, as far as the drawing has room for them."""
    half = 3.6 * len(said)
    return svg.words(
        min(max(x, across.start + half), across.end - half), y, said, "middle", 12, color, bold=True
    )
