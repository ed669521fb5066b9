"""The format graph as SVG: a box for each format, an arrow for each converter, the chosen path drawn over it.

Plain SVG text, instantly drawn anew: a notebook shows it, and so does a page without widgets. Solid or dashed,
thick or thin says what the colours say (Okabe and Ito 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import hypot

from labkit.convert import Converter
from labkit.convert.map import edges
from labkit.variant import get_format
from labkit.widgets.catalogue import text

COLUMNS, ROWS = 4, 3
CELL_WIDTH, CELL_HEIGHT = 190, 100
BOX_WIDTH, BOX_HEIGHT = 140, 46
PLACES = {
    "torch": (0, 0),
    "mindspore": (0, 1),
    "keras": (0, 2),
    "pt2": (1, 0),
    "onnx": (2, 1),
    "tensorflow": (2, 2),
    "openvino": (3, 0),
    "tensorrt": (3, 1),
    "tflite": (3, 2),
}
"""Format → (column, row): sources on the left, what engines run on the right, ONNX in the middle."""

_LINES = {
    "here": ("#4d4d4d", 1.6, ""),
    "missing": ("#767676", 1.4, "5 4"),
    "path": ("#D55E00", 4.0, ""),
    "path missing": ("#D55E00", 4.0, "6 4"),
}
_GAP = 5.0
_SIDEWAYS = 12.0  # how far each of two arrows between the same boxes is moved
_BESIDE = 20.0  # how far from its arrow a number stands
_LEGEND_HEIGHT = 30


def draw_map(path: Sequence[type[Converter]] = (), source: str = "") -> str:
    """An SVG document of all formats and converters; those of `path`, which starts at `source`, are thick."""
    chosen: dict[tuple[str, str], int] = {}
    for converter in path:
        chosen[source, converter.target] = len(chosen) + 1
        source = converter.target
    found = edges()
    both = {(edge["from"], edge["to"]) for edge in found}
    width, height = COLUMNS * CELL_WIDTH, ROWS * CELL_HEIGHT + _LEGEND_HEIGHT
    told = ", ".join(f"{edge['from']} → {edge['to']}" for edge in found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" style="display:block">',
        f"<title>{escape(text('map.title'))}</title><desc>{escape(told)}</desc>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for edge in sorted(found, key=lambda edge: (edge["from"], edge["to"]) in chosen):  # the path on top
        ends = edge["from"], edge["to"]
        style = "here" if edge["available"] else "missing"
        style = f"path{'' if edge['available'] else ' missing'}" if ends in chosen else style
        parts.append(_arrow(*ends, style, chosen.get(ends), ends[::-1] in both))
    parts += [_box(name) for name in PLACES]
    return "\n".join([*parts, *_legend(), "</svg>"])


def centre(name: str) -> tuple[float, float]:
    """The middle of a format's box, in pixels."""
    column, row = PLACES[name]
    return (column + 0.5) * CELL_WIDTH, (row + 0.5) * CELL_HEIGHT


def _arrow(source: str, target: str, style: str, number: int | None, twin: bool) -> str:
    """A line from box to box with a head, and its number on the path; one of two that run both ways is moved."""
    (x1, y1), (x2, y2) = centre(source), centre(target)
    length = hypot(x2 - x1, y2 - y1)
    across, down = (x2 - x1) / length, (y2 - y1) / length
    if twin:
        x1, y1 = _moved(x1, y1, across, down, _SIDEWAYS)
        x2, y2 = _moved(x2, y2, across, down, _SIDEWAYS)
    out = _to_edge(across, down)
    color, thickness, dashes = _LINES[style]
    head = 7 + 1.2 * thickness
    tip_x, tip_y = x2 - across * out, y2 - down * out
    base_x, base_y = tip_x - across * head, tip_y - down * head
    side = head * 0.42
    line = (
        f'<line x1="{x1 + across * out:.1f}" y1="{y1 + down * out:.1f}" x2="{base_x:.1f}" y2="{base_y:.1f}" '
        f'stroke="{color}" stroke-width="{thickness}" stroke-dasharray="{dashes}"/>'
        f'<path d="M{tip_x:.1f} {tip_y:.1f}L{base_x - down * side:.1f} {base_y + across * side:.1f}'
        f'L{base_x + down * side:.1f} {base_y - across * side:.1f}Z" fill="{color}"/>'
    )
    if number is not None:
        x, y = _moved((x1 + x2) / 2, (y1 + y2) / 2, across, down, _BESIDE)
        line += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="#fff" stroke="{color}" stroke-width="2"/>'
            f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" font-size="13" font-weight="600">{number}</text>'
        )
    return f"<g><title>{escape(f'{source} → {target}')}</title>{line}</g>"


def _moved(x: float, y: float, across: float, down: float, pixels: float) -> tuple[float, float]:
    """A point, moved to the right of somebody who walks in the direction (across, down)."""
    return x - down * pixels, y + across * pixels


def _to_edge(across: float, down: float) -> float:
    """How far it is from the middle of a box to just outside its edge, in the direction (across, down)."""
    half = (BOX_WIDTH / 2 + _GAP, BOX_HEIGHT / 2 + _GAP)
    return min(
        side / abs(part) if part else float("inf") for side, part in zip(half, (across, down), strict=True)
    )


def _box(name: str) -> str:
    x, y = centre(name)
    return (
        f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        f'rx="5" fill="#f4f4f4" stroke="#4d4d4d"/>'
        f'<text x="{x:.0f}" y="{y - 1:.0f}" text-anchor="middle" font-size="13" font-weight="600">{escape(name)}</text>'
        f'<text x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle" font-size="9.5">'
        f"{escape(get_format(name).title)}</text>"
    )


def _legend() -> list[str]:
    parts, x, y = [], 30, ROWS * CELL_HEIGHT + _LEGEND_HEIGHT / 2 - 4
    for style, key in (
        ("here", "map.legend.here"),
        ("missing", "map.legend.missing"),
        ("path", "map.legend.path"),
    ):
        color, thickness, dashes = _LINES[style]
        words = text(key)
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 36}" y2="{y}" stroke="{color}" stroke-width="{thickness}" '
            f'stroke-dasharray="{dashes}"/><text x="{x + 44}" y="{y + 4}" font-size="12">{escape(words)}</text>'
        )
        x += 230
    return parts
