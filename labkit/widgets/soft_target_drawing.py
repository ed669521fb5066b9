"""A digit, and beside it what the teacher says of it: a bar for each class, at temperature 1 and at yours."""

from __future__ import annotations

import math

import numpy as np

from labkit.variant import Array
from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.soft_target_rows import SoftTarget, percent, soft_target_says
from labkit.widgets.svg import Axis

WIDTH = 780
_PICTURE, _PICTURE_LEFT, _PICTURE_TOP = 200, 12, 36
_BARS_LEFT, _BARS_RIGHT, _BARS_TOP = 292, 690, 36
_ROW, _THICK, _THIN = 26, 15, 6
_GREYS = 16


def draw_soft_target(told: SoftTarget, temperature: float = 1.0) -> str:
    """An SVG document of the image, of the answers at temperature 1 and at `temperature`, and of their entropies."""
    bottom = _BARS_TOP + _ROW * len(told.labels)
    parts = [
        svg.words(_PICTURE_LEFT, 20, text("soft.label", label=told.label), size=13, bold=True),
        *draw_image(told.image, _PICTURE_LEFT, _PICTURE_TOP, _PICTURE),
        *_draw_bars(told, temperature),
        *_draw_entropy(told, temperature, bottom + 34),
    ]
    said = soft_target_says(told, temperature)
    return svg.document(WIDTH, bottom + 92, text("soft.title", label=told.label), said, parts)


def draw_image(image: Array, left: float, top: float, size: float) -> list[str]:
    """A grey image [H, W] as a square of shapes, one for each of 16 shades; the largest value is black."""
    low, high = float(image.min()), float(image.max())
    shades = np.rint((image.astype(np.float64) - low) / ((high - low) or 1.0) * (_GREYS - 1)).astype(int)
    step = size / len(image)
    parts = [svg.rect(left, top, size, size, "#fff", f'stroke="{svg.GREY}"')]
    for shade in range(1, _GREYS):
        cells = "".join(
            f"M{left + step * column:.2f} {top + step * row:.2f}h{step:.2f}v{step:.2f}h-{step:.2f}Z"
            for row, column in np.argwhere(shades == shade).tolist()
        )
        if cells:
            grey = f"{255 - round(255 * shade / (_GREYS - 1)):02x}" * 3
            parts.append(f'<path d="{cells}" fill="#{grey}" shape-rendering="crispEdges"/>')
    return parts


def _draw_bars(told: SoftTarget, temperature: float) -> list[str]:
    """A thick bar for each class at this temperature, and a thin one below it at temperature 1."""
    along = Axis(0.0, 1.0, _BARS_LEFT, _BARS_RIGHT)
    soft, plain = told.at(temperature).tolist(), told.at(1.0).tolist()
    legend = ((svg.BLUE, text("soft.yours", temperature=temperature)), (svg.ORANGE, text("soft.plain")))
    parts = []
    for x, (color, said) in zip((_BARS_LEFT, _BARS_LEFT + 210), legend, strict=True):
        parts += [svg.rect(x, 11, 14, 10 if color == svg.BLUE else 5, color), svg.words(x + 20, 20, said)]
    for row, label in enumerate(told.labels):
        y = _BARS_TOP + _ROW * row
        is_label = label == told.label
        parts += [
            svg.words(_BARS_LEFT - 10, y + 14, label, "end", 13, bold=is_label),
            svg.rect(_BARS_LEFT, y, along(soft[row]) - _BARS_LEFT, _THICK, svg.BLUE),
            svg.rect(_BARS_LEFT, y + _THICK, along(plain[row]) - _BARS_LEFT, _THIN, svg.ORANGE),
            svg.words(along(soft[row]) + 6, y + 12, percent(soft[row]), size=11, bold=is_label),
        ]
        if is_label:
            parts.append(svg.words(_BARS_LEFT - 30, y + 14, text("soft.mark"), "end", 12))
    return [
        *parts,
        svg.line(_BARS_LEFT, _BARS_TOP - 4, _BARS_LEFT, _BARS_TOP + _ROW * len(told.labels), svg.DARK),
    ]


def _draw_entropy(told: SoftTarget, temperature: float, top: float) -> list[str]:
    """How undecided the answer is, from 0 bits to those of an even one, with both temperatures marked."""
    along = Axis(0.0, math.log2(len(told.labels)), _BARS_LEFT, _BARS_RIGHT)
    yours, plain = along(told.bits(temperature)), along(told.bits(1.0))
    return [
        svg.words(_BARS_LEFT - 10, top + 4, text("soft.entropy"), "end", 12, bold=True),
        svg.line(plain, top - 9, plain, top + 9, svg.ORANGE, 3),
        f'<circle cx="{yours:.1f}" cy="{top:.1f}" r="7" fill="{svg.BLUE}" stroke="#fff" stroke-width="2"/>',
        svg.words(
            _BARS_RIGHT + 14, top + 4, text("soft.bits", bits=told.bits(temperature)), size=12, bold=True
        ),
        *svg.bottom_axis(along, top + 12, text("soft.entropy.axis"), 5),
    ]
