"""Errors against temperature, a line for each alpha: the chosen one in front, the labels alone as a level to beat."""

from __future__ import annotations

from labkit.plots import OKABE_ITO
from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.svg import Axis
from labkit.widgets.temperature_rows import Students, Sweep, interval, temperature_says

WIDTH, HEIGHT = 680, 392
_LEFT, _RIGHT, _TOP, _BOTTOM = 160, 510, 24, 340
_DASHES = ("9 4", "2 3", "6 3 2 3", "")


def draw_temperatures(recorded: Sweep, temperature: float, alpha: float) -> str:
    """An SVG document of all recorded students; those nearest to these settings are ringed."""
    near, alone = recorded.nearest(temperature, alpha), recorded.nearest(temperature, 0.0)
    temperatures = sorted({each.temperature for each in recorded.sweep if each.alpha})
    across = Axis(temperatures[0], temperatures[-1], _LEFT, _RIGHT, log=True)
    most = max(interval(each)[1] for each in recorded.sweep)
    up = Axis(0.0, 1.05 * most, _BOTTOM, _TOP)
    parts = [*_draw_frame(recorded, across, up, temperatures), *_draw_alone(alone, across, up)]
    lines: dict[float, list[Students]] = {}
    for each in sorted((each for each in recorded.sweep if each.alpha), key=lambda each: each.temperature):
        lines.setdefault(each.alpha, []).append(each)
    for index, (weight, students) in enumerate(lines.items()):
        chosen = weight == near.alpha
        color, dashes = OKABE_ITO[index % len(OKABE_ITO)], "" if chosen else _DASHES[index % len(_DASHES)]
        points = [(across(each.temperature), up(each.mean)) for each in students]
        parts.append(svg.polyline(points, color, 3.2 if chosen else 1.4, dashes))
        if chosen:
            parts += [_bar(across(each.temperature), up, each, color) for each in students]
    parts += _draw_legend(list(lines), near.alpha)
    x, y = across(near.temperature) if near.alpha else across(temperature), up(near.mean)
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="#fff" stroke="{svg.DARK}" stroke-width="2.6"/>',
        svg.words(x, y - 14, text("heat.mark", mean=near.mean), "middle", 13, bold=True),
    ]
    return svg.document(
        WIDTH, HEIGHT, text("heat.title"), temperature_says(recorded, temperature, alpha), parts
    )


def _draw_frame(recorded: Sweep, across: Axis, up: Axis, temperatures: list[float]) -> list[str]:
    """Both axes; the ticks below are the recorded temperatures."""
    note = text("heat.errors.note", images=recorded.images, seeds=len(recorded.sweep[0].errors))
    parts = [svg.words(8, _TOP + 10, text("heat.errors"), bold=True)]
    parts += [svg.words(8, _TOP + 26 + 14 * row, said, size=11) for row, said in enumerate(note.split("\n"))]
    for tick in up.ticks(7):
        parts.append(svg.line(_LEFT, up(tick), _RIGHT, up(tick), svg.LIGHT))
        parts.append(svg.words(_LEFT - 14, up(tick) + 4, f"{tick:g}", "end", 11))
    for each in temperatures:
        parts.append(svg.line(across(each), _BOTTOM, across(each), _BOTTOM + 4))
        parts.append(svg.words(across(each), _BOTTOM + 17, f"{each:g}", "middle", 11))
    middle = (_LEFT + _RIGHT) / 2
    return [
        *parts,
        svg.line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM),
        svg.words(middle, _BOTTOM + 38, text("heat.axis"), "middle"),
    ]


def _draw_alone(alone: Students, across: Axis, up: Axis) -> list[str]:
    """The level that a teacher has to get below, with its interval as a band."""
    low, high = interval(alone)
    return [
        svg.rect(across.start, up(high), across.end - across.start, up(low) - up(high), svg.LIGHT),
        svg.line(across.start, up(alone.mean), across.end, up(alone.mean), svg.GREY, 2),
        svg.words(across.end + 12, up(alone.mean) + 4, text("heat.alone"), color=svg.DARK),
    ]


def _bar(x: float, up: Axis, students: Students, color: str) -> str:
    """The interval of one mean."""
    low, high = interval(students)
    return svg.line(x, up(low), x, up(high), color, 1.6)


def _draw_legend(alphas: list[float], chosen: float) -> list[str]:
    """A stretch of each line, with its alpha."""
    parts = []
    for index, alpha in enumerate(alphas):
        y = _BOTTOM - 90 + 22 * index
        color, dashes = (
            OKABE_ITO[index % len(OKABE_ITO)],
            "" if alpha == chosen else _DASHES[index % len(_DASHES)],
        )
        parts.append(svg.line(_RIGHT + 14, y, _RIGHT + 50, y, color, 3.2 if alpha == chosen else 1.4, dashes))
        parts.append(svg.words(_RIGHT + 58, y + 4, text("heat.line", alpha=alpha), bold=alpha == chosen))
    return parts
