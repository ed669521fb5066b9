"""What a game's assignment comes to, drawn: all of it against a limit on top, then a line of bars for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.widgets import svg
from labkit.widgets.svg import Axis

WIDTH = 940
_ROW, _TOP, _BAR_HEIGHT = 22, 108, 14
_NAME, _SETTING, _BARS = 8, 228, (340, 630)  # where the columns begin
LONGEST_BAR = 180  # its words stand behind it
_GAUGE_TOP, _GAUGE_HEIGHT = 32, 20
_LONGEST_NAME = 32
_HATCH = (
    '<defs><pattern id="labkit-hatched" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
    f'<line x1="0" y1="0" x2="0" y2="6" stroke="{svg.ORANGE}" stroke-width="7"/></pattern></defs>'
)

Fill = tuple[str, str]
"""A colour or a pattern, and the attributes of its rim."""

FULL: Fill = (svg.BLUE, "")
HATCHED: Fill = ("url(#labkit-hatched)", f'stroke="{svg.ORANGE}"')
GREEN: Fill = (svg.GREEN, "")
PALE: Fill = (svg.LIGHT, f'stroke="{svg.GREY}"')


@dataclass(frozen=True)
class Gauge:
    """A sum against its limit, both of at most `most`: what stands above it, the verdict, and the limit's name."""

    value: float
    limit: float
    most: float
    said: str
    verdict: str
    limit_said: str


@dataclass(frozen=True)
class Line:
    """A layer: its name, what it was given, and two bars, each of so many pixels with its words."""

    name: str
    setting: str
    fill: Fill
    bars: Sequence[tuple[float, str]]


def draw_board(title: str, told: str, gauge: Gauge, columns: Sequence[str], lines: Sequence[Line]) -> str:
    """An SVG document; `columns` are the titles above name, setting and the two bars, `told` is all of it in words."""
    parts = [_HATCH, *_draw_gauge(gauge)]
    places = (_NAME, _SETTING, *_BARS)
    parts += [svg.words(x, _TOP - 8, said, bold=True) for x, said in zip(places, columns, strict=True)]
    for index, line in enumerate(lines):
        y = _TOP + index * _ROW
        parts.append(svg.words(_NAME, y + 12, svg.shorten(line.name, _LONGEST_NAME)))
        parts.append(svg.words(_SETTING, y + 12, line.setting))
        for x, (length, said) in zip(_BARS, line.bars, strict=True):
            parts.append(svg.rect(x, y + 1, max(1.5, length), _BAR_HEIGHT, *line.fill))
            parts.append(svg.words(x + length + 6, y + 12, said, size=11))
    return svg.document(WIDTH, _TOP + _ROW * len(lines) + 10, title, told, parts)


def _draw_gauge(gauge: Gauge) -> list[str]:
    """One bar of the sum, and a line at its limit; what is beyond it is hatched."""
    axis = Axis(0, 1.02 * max(gauge.most, gauge.limit), _NAME, WIDTH - 12)
    end, limit, bottom = axis(gauge.value), axis(gauge.limit), _GAUGE_TOP + _GAUGE_HEIGHT
    color = svg.VERMILLION if gauge.value > gauge.limit else svg.GREEN
    return [
        svg.rect(_NAME, _GAUGE_TOP, axis.end - _NAME, _GAUGE_HEIGHT, "#fff", f'stroke="{svg.GREY}"'),
        svg.rect(_NAME, _GAUGE_TOP, end - _NAME, _GAUGE_HEIGHT, svg.BLUE),
        svg.rect(limit, _GAUGE_TOP, end - limit, _GAUGE_HEIGHT, HATCHED[0]),
        svg.line(limit, _GAUGE_TOP - 8, limit, bottom + 8, svg.DARK, 2.5),
        svg.words(_NAME, _GAUGE_TOP - 12, gauge.said, size=13, bold=True),
        svg.words(WIDTH - 12, _GAUGE_TOP - 12, gauge.verdict, "end", 13, color, bold=True),
        svg.words(min(max(limit, 90), WIDTH - 100), bottom + 22, gauge.limit_said, "middle"),
    ]
