"""Tickets against controls: how well each round ends, and how fast the chosen one learns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.svg import Axis
from labkit.widgets.ticket_rows import TicketRound, middle, round_at, tickets_say

_WIDTH, _HEIGHT = 860, 330
_TOP, _BOTTOM = 52, 270
_ENDS, _LEARNS = (60.0, 500.0), (590.0, 840.0)  # where the two charts stand
_TICKET, _CONTROL, _WHOLE = (svg.BLUE, 2.4, ""), (svg.VERMILLION, 2.0, "6 4"), (svg.GREY, 1.6, "2 3")
_HEADROOM_PP = 1.0
Style = tuple[str, float, str]


def draw_tickets(rounds: Sequence[TicketRound], number: int) -> str:
    """An SVG document of `rounds_of` some runs: medians as lines, each seed as a dot, the chosen round marked."""
    chosen = round_at(rounds, number)
    parts = [
        *_draw_legend(),
        *_draw_ends(rounds, chosen),
        *_draw_learning(rounds[0], chosen),
    ]
    told = [tickets_say(rounds, each.number) for each in rounds]
    return svg.document(_WIDTH, _HEIGHT, text("tickets.title"), " ".join(told), parts)


def _draw_legend() -> list[str]:
    parts, x = [], 10.0
    keys = ("tickets.legend.ticket", "tickets.legend.control", "tickets.legend.whole")
    for style, key in zip((_TICKET, _CONTROL, _WHOLE), keys, strict=True):
        said = text(key)
        parts += [svg.line(x, 14, x + 30, 14, *style), svg.words(x + 36, 18, said)]
        x += 62 + 6.0 * len(said)
    return parts


def _draw_ends(rounds: Sequence[TicketRound], chosen: TicketRound) -> list[str]:
    """The accuracy at the end over the share of weights that is kept, from all to the fewest."""
    across = Axis(rounds[-1].kept, 1.0, _ENDS[1], _ENDS[0], log=True)
    ends = [curve[-1] for each in rounds for curve in (*each.tickets, *each.controls)]
    up = _upwards(ends)
    parts = [svg.words(_ENDS[0] - 50, _TOP - 14, text("tickets.ends"), bold=True), *_grid(up, _ENDS)]
    parts.append(svg.line(across(chosen.kept), _TOP, across(chosen.kept), _BOTTOM, svg.DARK, 1.2))
    for kind, style in (("tickets", _TICKET), ("controls", _CONTROL)):
        points = []
        for each in rounds:
            curves = getattr(each, kind)
            parts += [_dot(across(each.kept), up(curve[-1]), style[0]) for curve in curves]
            height = middle(curves)
            if height is not None:
                points.append((across(each.kept), up(height)))
        parts.append(svg.polyline(points, *style))
    last = math.inf
    for each in rounds:  # as many of the shares as there is room for
        if abs(across(each.kept) - last) >= 40:  # noqa: PLR2004 - pixels that a number needs
            last = across(each.kept)
            parts += [
                svg.line(last, _BOTTOM, last, _BOTTOM + 4),
                svg.words(last, _BOTTOM + 16, f"{each.kept:.0%}", "middle", 11),
            ]
    return [*parts, svg.words(sum(_ENDS) / 2, _BOTTOM + 36, text("tickets.kept"), "middle")]


def _draw_learning(whole: TicketRound, chosen: TicketRound) -> list[str]:
    """The medians after each epoch: the whole network, the chosen ticket, its control."""
    curves = [(whole.tickets, _WHOLE), (chosen.controls, _CONTROL), (chosen.tickets, _TICKET)]
    epochs = len(whole.tickets[0])
    across = Axis(1, max(epochs, 2), *_LEARNS)
    medians = [
        ([middle(each, epoch) for epoch in range(epochs)] if each else [], style) for each, style in curves
    ]
    up = _upwards([height for heights, _ in medians for height in heights if height is not None])
    title = text("tickets.learns", round=chosen.number)
    parts = [svg.words(_LEARNS[0] - 50, _TOP - 14, title, bold=True), *_grid(up, _LEARNS)]
    for heights, style in medians:
        points = [
            (across(epoch), up(height)) for epoch, height in enumerate(heights, 1) if height is not None
        ]
        if points:
            parts.append(svg.polyline(points, *style))
            parts += [_dot(x, y, style[0]) for x, y in points]
    for epoch in range(1, epochs + 1):
        parts.append(svg.words(across(epoch), _BOTTOM + 16, str(epoch), "middle", 11))
    return [*parts, svg.words(sum(_LEARNS) / 2, _BOTTOM + 36, text("tickets.epoch"), "middle")]


def _upwards(values: Sequence[float]) -> Axis:
    return Axis(min(values) - _HEADROOM_PP, max(values) + _HEADROOM_PP, _BOTTOM, _TOP)


def _grid(up: Axis, ends: tuple[float, float]) -> list[str]:
    parts = [svg.line(ends[0], _BOTTOM, ends[1], _BOTTOM)]
    for tick in up.ticks(6):
        parts.append(svg.line(ends[0], up(tick), ends[1], up(tick), svg.LIGHT))
        parts.append(svg.words(ends[0] - 6, up(tick) + 4, f"{tick:g}", "end", 11))
    return parts


def _dot(x: float, y: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}" fill-opacity="0.55"/>'
