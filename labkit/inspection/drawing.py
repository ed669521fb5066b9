"""The graph of a model as SVG: one box a layer, from the inputs at the top to the outputs at the bottom.

Plain SVG text, with no script and nothing fetched: a notebook shows it, and so does a browser. Colour tells the
family of an operator, and the name that stands in the box tells it too. The colours are Okabe and Ito's
(2008), which people with any common kind of colour blindness tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labkit.inspection.layout import Layout, layout
from labkit.inspection.record import Inspection
from labkit.inspection.sketch import FAMILIES, Box, sketch
from labkit.inspection.table import printable

_MARGIN, _GAP = 24.0, 22.0
_BOX_HEIGHT, _ROW_HEIGHT = 48.0, 78.0
_NARROWEST, _WIDEST = 110.0, 190.0
_CHARACTER = 6.1  # the mean width of one at 11 pixels
_LEGEND_HEIGHT = 26.0


def draw_graph(inspection: Inspection) -> str:
    """An SVG document of the graph; of a large one runs are drawn as one box, and what is left out is said."""
    boxes, parents, remark = sketch(inspection)
    longest = max((len(line) for box in boxes for line in box.lines), default=0)
    width = min(max(_NARROWEST, longest * _CHARACTER + 16), _WIDEST)
    placed = layout(parents, width, _GAP)
    legend = [family for family in FAMILIES if any(box.family == family for box in boxes)]
    left, right, columns = _extent(placed, width, len(legend))
    top = 2 * _MARGIN + _LEGEND_HEIGHT * -(-len(legend) // columns)
    height = top + _ROW_HEIGHT * (max(placed.rows, default=0) + 1) + (_LEGEND_HEIGHT if remark else 0)
    title = f"The graph of {inspection.file}"
    counted = ", ".join(f"{count} {name}" for name, count in inspection.operators.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{right - left:.0f}" height="{height:.0f}" '
        f'viewBox="{left:.0f} 0 {right - left:.0f} {height:.0f}" font-family="system-ui, sans-serif">',
        f"<title>{_text(title)}</title>",
        f"<desc>{_text(f'{len(inspection.layers)} layers from top to bottom: {counted}. {remark}')}</desc>",
        f'<rect x="{left:.0f}" width="{right - left:.0f}" height="{height:.0f}" fill="#fff"/>',
        *_legend(legend, left + _MARGIN, columns),
        '<g fill="none" stroke="#666" stroke-width="1.4">',
        *(f'<path d="{_curve(points, top)}"/>' for points in placed.arrows),
        "</g>",
        *(
            _box(box, x, top + row * _ROW_HEIGHT, width)
            for box, x, row in zip(boxes, placed.centres, placed.rows, strict=True)
        ),
    ]
    if remark:
        parts.append(
            f'<text x="{left + _MARGIN:.0f}" y="{height - 12:.0f}" font-size="12">{_text(remark)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _extent(placed: Layout, width: float, families: int) -> tuple[float, float, int]:
    """Left and right edge of the picture, and how many entries of the legend fit beside one another."""
    xs = [
        *(x + side * width / 2 for x in placed.centres for side in (-1, 1)),
        *(x for a in placed.arrows for x, _, _ in a),
    ]
    left, right = min(xs, default=0.0) - _MARGIN, max(xs, default=0.0) + _MARGIN
    missing = max(0.0, 2 * (_NARROWEST + 2 * _MARGIN) - (right - left))
    left, right = left - missing / 2, right + missing / 2
    return left, right, max(1, min(families, int((right - left - 2 * _MARGIN) // _NARROWEST)))


def _legend(families: Sequence[str], left: float, columns: int) -> list[str]:
    parts = []
    for index, family in enumerate(families):
        x, y = left + index % columns * _NARROWEST, _MARGIN / 2 + index // columns * _LEGEND_HEIGHT
        stroke, fill = FAMILIES[family].stroke, FAMILIES[family].fill
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="16" height="16" rx="3" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="2"/><text x="{x + 22:.0f}" y="{y + 12:.0f}" font-size="11">{_text(family)}</text>'
        )
    return parts


def _box(box: Box, x: float, y: float, width: float) -> str:
    """A box with up to three lines: what it does, its name, the shape of what comes out."""
    look = FAMILIES[box.family]
    height = _BOX_HEIGHT
    radius = height / 2 if box.family == "input, output" else 5
    room = int((width - 12) / _CHARACTER)
    lines = [_short(line, room) for line in box.lines if line]
    first = y + height / 2 + 4 - 7 * (len(lines) - 1)
    texts = "".join(
        f'<text x="{x:.1f}" y="{first + 14 * index:.1f}" text-anchor="middle" '
        f'font-size="{12 if index == 0 else 10.5}"{" font-weight=" + chr(34) + "600" + chr(34) if index == 0 else ""}>'
        f"{_text(line)}</text>"
        for index, line in enumerate(lines)
    )
    return (
        f"<g><title>{_text(box.told)}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.0f}" rx="{radius:.0f}" '
        f'fill="{look.fill}" stroke="{look.stroke}" stroke-width="1.8"/>{texts}</g>'
    )


def _curve(points: Sequence[tuple[float, int, bool]], top: float) -> str:
    """A smooth line through the points: down from a box's foot, past the rows between, to a box's head."""
    x, row, boxed = points[0]
    y = top + row * _ROW_HEIGHT + _BOX_HEIGHT
    path = [f"M{x:.1f} {y:.1f}"]
    for x_next, row, boxed in points[1:]:
        y_next = top + row * _ROW_HEIGHT
        middle = (y + y_next) / 2
        path.append(f"C{x:.1f} {middle:.1f} {x_next:.1f} {middle:.1f} {x_next:.1f} {y_next:.1f}")
        x, y = x_next, y_next
        if not boxed:
            y += _BOX_HEIGHT
            path.append(f"V{y:.1f}")
    return "".join(path)


def _short(text: str, room: int) -> str:
    """A text that fits, its end kept: names differ there."""
    return text if len(text) <= room else f"…{text[1 - room :]}"


def _text(text: str) -> str:
    return escape(printable(text))
