"""Chosen widths, drawn: the multiply-adds against the goal on top, then what each group saves and costs alone."""

from __future__ import annotations

from labkit.widgets.board_drawing import FULL, HATCHED, LONGEST_BAR, Gauge, Line, draw_board
from labkit.widgets.catalogue import text
from labkit.widgets.channel_rows import WidthsTotal
from labkit.widgets.svg import Axis

_MOST_LOST_PP = 100.0
_MOST_SAVED = 0.4


def draw_widths(total: WidthsTotal) -> str:
    """An SVG document of `Options.total`: residual streams, which several layers share, are hatched."""
    saved = Axis(0, _MOST_SAVED, 0, LONGEST_BAR)
    lost = Axis(0, _MOST_LOST_PP, 0, LONGEST_BAR)
    lines = []
    for each in total.options:
        setting = text("channels.kept", channels=each.channels, units=each.units)
        bars = (
            (saved(each.saved), text("channels.saved", saved=each.saved)),
            (lost(each.lost_pp), text("channels.lost", lost_pp=each.lost_pp)),
        )
        lines.append(Line(each.group, setting, HATCHED if each.residual else FULL, bars))
    told = [total.says]
    told += [text("channels.told", **vars(each), lost_pp=each.lost_pp) for each in total.options]
    keys = ("channels.column.group", "channels.column.kept", "channels.column.saves", "channels.column.costs")
    gauge = Gauge(
        total.share,
        total.keep,
        1.0,
        text("channels.macs", macs=total.macs, share=total.share),
        text("channels.gauge.over" if total.is_over else "channels.gauge.within"),
        text("channels.goal", keep=total.keep),
    )
    return draw_board(text("channels.title"), " ".join(told), gauge, [text(key) for key in keys], lines)
