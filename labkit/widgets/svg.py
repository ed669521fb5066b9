"""The few shapes that our drawings are made of, as SVG text: drawn anew in a millisecond, sharp at any size.

Matplotlib needs some 50 ms for a figure, too long while a slider moves. A drawing is a plain string; a notebook
shows it (`IPython.display.SVG`), and so does a page without widgets. Its words are a title and a description.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
DARK, GREY, LIGHT = "#333333", "#767676", "#e2e2e2"
_NICE = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Axis:
    """Values low..high (low < high) laid along the pixels start..end; `log`: their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; one beyond an end is drawn at that end."""
        low, high, at = (self._number(each) for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * min(1.0, max(0.0, (at - low) / (high - low)))

    def _number(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self, most: int = 8) -> list[float]:
        """At most so many round numbers between the ends: multiples of 1, 2, 2.5 or 5, or powers of ten."""
        if self.log:
            first_power, last_power = (
                math.ceil(math.log10(self.low) - 1e-9),
                math.floor(math.log10(self.high) + 1e-9),
            )
            every = max(1, -(-(last_power - first_power + 1) // most))
            return [10.0**exponent for exponent in range(first_power, last_power + 1, every)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(each for each in _NICE if each * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def document(width: float, height: float, title: str, told: str, parts: Iterable[str]) -> str:
    """The drawing, with what it is and what it shows in words; it shrinks where there is less room."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="system-ui, sans-serif" '
            'style="display:block;max-width:100%;height:auto">',
            f"<title>{escape(title)}</title><desc>{escape(told)}</desc>",
            rect(0, 0, width, height, "#fff"),
            *parts,
            "</svg>",
        ]
    )


def line(
    x1: float, y1: float, x2: float, y2: float, color: str = GREY, width: float = 1, dashes: str = ""
) -> str:
    """A straight line; `dashes` such as "5 4"."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"{_dashed(dashes)}/>'
    )


def polyline(points: Sequence[tuple[float, float]], color: str, width: float = 2, dashes: str = "") -> str:
    """A line through all `points`."""
    return stroke("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), color, width, dashes)


def stroke(path: str, color: str, width: float = 1, dashes: str = "") -> str:
    """A path that is drawn and not filled: many small lines in one go."""
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{_dashed(dashes)}/>'


def rect(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    """A filled rectangle; `more` attributes."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0, width):.1f}" height="{max(0, height):.1f}" '
        f'fill="{fill}"{" " * bool(more)}{more}/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, color: str = GREY, width: float = 1) -> str:
    """A line with a head at its second end."""
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    across, down, head = (x2 - x1) / length, (y2 - y1) / length, 4 + 1.5 * width
    base_x, base_y = x2 - across * head, y2 - down * head
    side = head * 0.45
    return line(x1, y1, base_x, base_y, color, width) + (
        f'<path d="M{x2:.1f} {y2:.1f}L{base_x - down * side:.1f} {base_y + across * side:.1f}'
        f'L{base_x + down * side:.1f} {base_y - across * side:.1f}Z" fill="{color}"/>'
    )


def words(
    x: float,
    y: float,
    said: str,
    anchor: str = "start",
    size: float = 12,
    color: str = DARK,
    bold: bool = False,
) -> str:
    """A line of text, escaped, on a rim of white; anchor: "start", "middle" or "end" of it is at x."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{color}"{weight} '
        'paint-order="stroke" stroke="#fff" stroke-width="3" stroke-linejoin="round">'
        f"{escape(said)}</text>"
    )


def bottom_axis(axis: Axis, y: float, title: str, most: int = 8) -> list[str]:
    """A horizontal axis with its ticks, their numbers, and its title below."""
    parts = [line(axis.start, y, axis.end, y)]
    for tick in axis.ticks(most):
        parts += [
            line(axis(tick), y, axis(tick), y + 4),
            words(axis(tick), y + 16, f"{tick:.4g}", "middle", 11),
        ]
    return [*parts, words((axis.start + axis.end) / 2, y + 33, title, "middle")]


def shorten(name: str, most: int) -> str:
    """At most so many characters of a name: the middle gives way, as its ends tell names apart."""
    keep = most - 1
    return name if len(name) <= most else f"{name[: keep - keep // 2]}…{name[len(name) - keep // 2 :]}"


def _dashed(dashes: str) -> str:
    return f' stroke-dasharray="{dashes}"' if dashes else ""
