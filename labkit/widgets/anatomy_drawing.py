"""A coded file drawn: a stacked bar for each tensor, its bounds beside it, and what others take for the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.encode.anatomy import Part
from labkit.widgets import svg
from labkit.widgets.anatomy_rows import (
    GROUPS,
    Weighed,
    anatomy_says,
    best_of_others,
    by_tensor,
    byte_groups,
    coded_bytes,
    group_of,
)
from labkit.widgets.catalogue import text
from labkit.widgets.svg import Axis

WIDTH = 860
_NAME, _BARS, _WORDS = (
    8,
    170,
    92,
)  # where names begin, where bars do, and the room for words behind the longest
_ROW, _BAR = 26, 15
_SUM = 60  # the room that a sum takes
_LONGEST_NAME = 22
HATCHES = (
    '<defs><pattern id="labkit-values" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
    f'<line x1="0" y1="0" x2="0" y2="6" stroke="{svg.ORANGE}" stroke-width="7"/></pattern>'
    '<pattern id="labkit-stored" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" '
    f'fill="#fff"/><circle cx="2.5" cy="2.5" r="1.5" fill="{svg.GREY}"/></pattern></defs>'
)
FILLS: Mapping[str, tuple[str, str]] = {
    "positions": (svg.BLUE, ""),
    "values": ("url(#labkit-values)", f'stroke="{svg.ORANGE}"'),
    "stored": ("url(#labkit-stored)", f'stroke="{svg.GREY}"'),
    "codebooks": (svg.GREEN, ""),
    "frame": (svg.DARK, ""),
}


def draw_anatomy(weighed: Weighed) -> str:
    """An SVG document of a coded file: each tensor's bytes by group, and below it the other compressors."""
    found, tensors = weighed.found, by_tensor(weighed.found)
    others = best_of_others(weighed.others)
    longest = max(sum(part.bytes for part in parts) for parts in tensors.values())
    alone = max(coded_bytes(parts)[2] for parts in tensors.values())
    axis = Axis(0, max(longest, alone), _BARS, WIDTH - _WORDS)
    parts, y = [HATCHES, *draw_legend(8, 16), *_bound_legend(8, 38)], 62.0
    for name, of_tensor in tensors.items():
        label = name or text("anatomy.file")
        parts.append(svg.words(_NAME, y + 12, svg.shorten(label, _LONGEST_NAME), bold=True))
        sizes = dict.fromkeys(GROUPS, 0)
        for part in of_tensor:
            sizes[group_of(part)] += part.bytes
        parts += [
            *_draw_bounds(of_tensor, axis, y),
            *draw_stack(sizes, axis, y, axis(coded_bytes(of_tensor)[2])),
        ]
        y += _ROW
    whole = Axis(0, max(found.size_bytes, *others.values(), 1), _BARS, WIDTH - _WORDS)
    y += 34
    parts.append(svg.words(_NAME, y - 12, text("anatomy.compared"), size=13, bold=True))
    parts.append(svg.words(_NAME, y + 12, text("anatomy.ours"), bold=True))
    parts += draw_stack(byte_groups(found), whole, y)
    for name, size in sorted(others.items(), key=lambda each: each[1]):
        y += _ROW
        parts.append(svg.words(_NAME, y + 12, name))
        parts.append(svg.rect(_BARS, y, whole(size) - _BARS, _BAR, svg.LIGHT, f'stroke="{svg.GREY}"'))
        said = text("anatomy.other", bytes=size, ratio=size / found.size_bytes)
        parts.append(svg.words(whole(size) + 6, y + 12, said, size=11))
    told = [anatomy_says(weighed)]
    told += [
        text("anatomy.told", name=name or text("anatomy.file"), bytes=sum(part.bytes for part in of_tensor))
        for name, of_tensor in tensors.items()
    ]
    title = text("anatomy.title", size=found.size_bytes)
    return svg.document(WIDTH, y + _ROW + 6, title, " ".join(told), parts)


def draw_stack(sizes: Mapping[str, int], axis: Axis, y: float, line: float = 0.0) -> list[str]:
    """One bar of GROUPS → bytes one after the other, the sum behind it, and beyond a line that is in its way."""
    parts, at = [], 0
    for group in GROUPS:
        if sizes[group]:
            x = axis(at)
            parts.append(svg.rect(x, y, max(0.8, axis(at + sizes[group]) - x), _BAR, *FILLS[group]))
            at += sizes[group]
    behind = max(axis(at), line if line < axis(at) + _SUM else 0.0)
    return [*parts, svg.words(behind + 6, y + 12, f"{at:,}", size=11)]


def draw_legend(x: float, y: float) -> list[str]:
    """A swatch and a name for each of GROUPS, in a line."""
    parts = []
    for group, key in GROUPS.items():
        label = text(key)
        parts.append(svg.rect(x, y - 11, 22, 13, *FILLS[group]))
        parts.append(svg.words(x + 28, y, label))
        x += 46 + 6.6 * len(label)
    return parts


def _bound_legend(x: float, y: float) -> list[str]:
    bound, alone = text("anatomy.legend.bound"), text("anatomy.legend.alone")
    second = x + 32 + 6.6 * len(bound)
    return [
        svg.line(x + 10, y - 12, x + 10, y + 3, svg.VERMILLION, 2.5),
        svg.words(x + 28, y, bound),
        svg.line(second + 10, y - 12, second + 10, y + 3, svg.DARK, 2, "3 2"),
        svg.words(second + 28, y, alone),
    ]


def _draw_bounds(parts: Sequence[Part], axis: Axis, y: float) -> list[str]:
    """Where the coded symbols would end at their bound, and where if each stood alone."""
    _, bound, alone = coded_bytes(parts)
    if not bound:
        return []
    return [  # the bar hides the middle of a line, and its ends tell where it is
        svg.line(axis(bound), y - 5, axis(bound), y + _BAR + 5, svg.VERMILLION, 2.5),
        svg.line(axis(alone), y - 3, axis(alone), y + _BAR + 3, svg.DARK, 2, "3 2"),
    ]
