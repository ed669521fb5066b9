"""Many coded files as bytes against accuracy, a line for each number of levels; and what one of them is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labkit.widgets import svg
from labkit.widgets.anatomy_drawing import HATCHES, draw_legend, draw_stack
from labkit.widgets.catalogue import text
from labkit.widgets.coding_rows import CodedPoint, point_says
from labkit.widgets.svg import Axis

WIDTH = 860
_LEFT, _RIGHT, _TOP, _HEIGHT = 64, 92, 34, 270
_LEAST_PCT = 80.0
"""Accuracies below it are drawn on the bottom line, with an arrow."""


def draw_coding(
    points: Sequence[CodedPoint], chosen: CodedPoint, float_bytes: int, float_accuracy_pct: float
) -> str:
    """An SVG document of files as bytes against accuracy; the line and the point of `chosen` stand out.

    float_bytes and float_accuracy_pct: of the network that they were made of.
    """
    smallest = min(point.size_bytes for point in points)
    bottom = _TOP + _HEIGHT
    across = Axis(0.8 * smallest, 1.1 * float_bytes, _LEFT, WIDTH - _RIGHT, log=True)
    up = Axis(_LEAST_PCT, 100.0, bottom, _TOP)
    parts = [HATCHES, *_frame(across, up), *_draw_reference(across, up, float_bytes, float_accuracy_pct)]
    lines: dict[int, list[CodedPoint]] = {}
    for point in sorted(points, key=lambda each: each.size_bytes):
        lines.setdefault(point.levels, []).append(point)
    for levels in sorted(lines, key=lambda each: each == chosen.levels):  # the chosen line lies on top
        parts += _draw_line(lines[levels], across, up, levels == chosen.levels)
    parts += _draw_chosen(chosen, across, up)
    y = bottom + 62.0
    whole = Axis(0, chosen.size_bytes, _LEFT, WIDTH - _RIGHT)
    parts += [*draw_legend(8, y + 4), *draw_stack(chosen.groups, whole, y + 16)]
    told = [point_says(chosen, float_bytes)]
    told += [text("coding.told", **{**vars(point), "size": point.size_bytes}) for point in points]
    return svg.document(WIDTH, y + 44, text("coding.title"), " ".join(told), parts)


def _frame(across: Axis, up: Axis) -> list[str]:
    parts = [svg.words(8, _TOP - 16, text("coding.accuracy"), bold=True)]
    for tick in up.ticks(6):
        parts.append(svg.line(across.start, up(tick), across.end, up(tick), svg.LIGHT))
        parts.append(svg.words(across.start - 6, up(tick) + 4, f"{tick:g}", "end", 11))
    parts.append(svg.line(across.start, up.start, across.end, up.start))
    for power in range(math.floor(math.log10(across.low)), math.floor(math.log10(across.high)) + 1):
        for step in (1, 2, 5):
            if across.low <= step * 10**power <= across.high:
                x = across(step * 10**power)
                parts.append(svg.line(x, up.start, x, up.start + 4))
                parts.append(svg.words(x, up.start + 16, f"{step * 10**power:,}", "middle", 11))
    middle = (across.start + across.end) / 2
    return [*parts, svg.words(middle, up.start + 34, text("coding.bytes"), "middle")]


def _draw_reference(across: Axis, up: Axis, float_bytes: int, accuracy_pct: float) -> list[str]:
    """The float network: its accuracy as a line, half a point less as another, its file at the end."""
    x, y = across(float_bytes), up(accuracy_pct)
    half = up(accuracy_pct - 0.5)
    return [
        svg.line(across.start, y, across.end, y, svg.DARK, 1.2),
        svg.line(across.start, half, across.end, half, svg.GREEN, 1.2, "5 4"),
        svg.words(across.end + 4, y - 2, "float32", size=11),
        svg.words(across.end + 4, half + 11, text("coding.half"), size=11, color=svg.GREEN),
        svg.rect(x - 5, y - 5, 10, 10, svg.DARK),
    ]


def _draw_line(points: Sequence[CodedPoint], across: Axis, up: Axis, is_chosen: bool) -> list[str]:
    """All files of one number of levels; those of the chosen one with their sparsities."""
    color, width = (svg.BLUE, 2.4) if is_chosen else (svg.GREY, 0.9)
    places = [(across(point.size_bytes), up(point.accuracy_pct)) for point in points]
    parts = [svg.polyline(places, color, width, "" if is_chosen else "4 3")]
    for index, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if is_chosen else 2.2}" fill="{color}"/>')
        if point.accuracy_pct < _LEAST_PCT:
            parts.append(svg.arrow(x, y - 16, x, y - 4, color, 1.2))
        if is_chosen:
            aside = 20 if index % 2 else -11  # above and below in turns, so that neighbours do not meet
            parts.append(svg.words(x, y + aside, f"{point.sparsity:.0%}", "middle", 11, svg.BLUE))
    return parts


def _draw_chosen(point: CodedPoint, across: Axis, up: Axis) -> list[str]:
    """A ring, a line down to the bytes, and the interval of what was lost."""
    x, y = across(point.size_bytes), up(point.accuracy_pct)
    low, high = (up(point.accuracy_pct + point.drop_pp - end) for end in point.drop_ci95)
    return [
        svg.line(x, y, x, up.start, svg.DARK, 1),
        svg.line(x, low, x, high, svg.DARK, 2),
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{svg.DARK}" stroke-width="2.6"/>',
    ]
