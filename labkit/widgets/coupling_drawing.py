"""Which layers share their channels: one column for each group, a mark wherever a layer makes or reads it."""

from __future__ import annotations

from typing import Any

from labkit.plots import table_html
from labkit.prune import Widths
from labkit.prune.coupling import Group
from labkit.widgets import svg
from labkit.widgets.catalogue import text

_LEFT, _TOP, _COLUMN, _ROW = 190, 66, 44, 21
_LONGEST_NAME = 28
_RESIDUAL = "#fdf0dc"


def draw_coupling(widths: Widths) -> str:
    """An SVG document: filled squares are the layers that make a group of channels, rings those that read it.

    All of a column loses the same channels, or none. Columns of residual streams are shaded.
    """
    groups = widths.structure.coupling.groups
    stored = [each.name for each in widths.structure.coupling.model.graph.initializer]
    marked = {name for group in groups for name in (*makers(group), *readers(group))}
    layers = [name for name in stored if name in marked]
    bottom = _TOP + _ROW * len(layers)
    parts = _draw_legend()
    for column, group in enumerate(groups):
        x = _LEFT + _COLUMN * (column + 0.5)
        if group.residual:
            parts.append(svg.rect(x - _COLUMN / 2 + 2, _TOP - 34, _COLUMN - 4, bottom - _TOP + 38, _RESIDUAL))
        rows = [layers.index(name) for name in (*makers(group), *readers(group))]
        first, last = (_TOP + _ROW * (row + 0.5) for row in (min(rows), max(rows)))
        parts.append(svg.words(x, _TOP - 18, str(column + 1), "middle", bold=True))
        parts.append(svg.words(x, _TOP - 4, f"{len(group) * group.width}", "middle", 10))
        parts.append(svg.line(x, first, x, last, svg.GREY, 1.4))
        for name in makers(group):
            y = _TOP + _ROW * (layers.index(name) + 0.5)
            parts.append(svg.rect(x - 6, y - 6, 12, 12, svg.BLUE))
        for name in readers(group):
            y = _TOP + _ROW * (layers.index(name) + 0.5)
            parts.append(_ring(x, y))
    for row, name in enumerate(layers):
        said = svg.shorten(name, _LONGEST_NAME)
        parts.append(svg.words(_LEFT - 8, _TOP + _ROW * (row + 0.5) + 4, said, "end", 11))
    told = [
        text(
            "coupling.told",
            number=number,
            makes=", ".join(makers(group)),
            reads=", ".join(readers(group)),
            channels=len(group) * group.width,
        )
        for number, group in enumerate(groups, 1)
    ]
    width = max(_LEFT + _COLUMN * len(groups) + 16, 640)
    return svg.document(width, bottom + 12, text("coupling.title"), " ".join(told), parts)


def coupling_table(widths: Widths) -> str:
    """An HTML table: each group, its channels, and the layers that make and read them."""
    rows: list[dict[str, Any]] = [
        {
            "group": number,
            "channels": len(group) * group.width,
            "where": text("channels.residual" if group.residual else "channels.inner"),
            "made by": ", ".join(makers(group)),
            "read by": ", ".join(readers(group)),
        }
        for number, group in enumerate(widths.structure.coupling.groups, 1)
    ]
    return table_html(rows, ("group", "channels", "where", "made by", "read by"))


def makers(group: Group) -> tuple[str, ...]:
    """The weights that make a group's channels."""
    return tuple(dict.fromkeys(member.tensor for member in group.of_role("makes")))


def readers(group: Group) -> tuple[str, ...]:
    """The weights that read them."""
    return tuple(dict.fromkeys(member.tensor for member in group.of_role("reads")))


def _ring(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="#fff" stroke="{svg.VERMILLION}" stroke-width="2.2"/>'


def _draw_legend() -> list[str]:
    return [
        svg.rect(10, 8, 12, 12, svg.BLUE),
        svg.words(28, 18, text("coupling.makes")),
        _ring(226, 14),
        svg.words(238, 18, text("coupling.reads")),
        svg.rect(420, 7, 14, 14, _RESIDUAL, f'stroke="{svg.GREY}"'),
        svg.words(440, 18, text("channels.residual")),
    ]
