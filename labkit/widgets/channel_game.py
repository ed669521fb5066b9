"""The channel game: choose how wide each group of channels stays, reach the goal, and measure how well you guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from labkit.progress import Progress
from labkit.widgets.catalogue import text
from labkit.widgets.channel_drawing import draw_widths
from labkit.widgets.channel_rows import Narrowed, Options, Shares, widths_table, widths_view
from labkit.widgets.explorer import Shown
from labkit.widgets.game import Game, measure_call
from labkit.widgets.layer_board import LayerBoard


class ChannelGame(Game):
    """A width for each group of channels: multiply-adds at once, accuracy and time at a click.

    ChannelGame(Options(widths, scan_channels(…), keep=0.5), measure, recorded)

    measure(assignment, progress) makes the network and measures it. `recorded` points stand beside one's own tries,
    which `tries` keeps.
    """

    name = "channels"

    def __init__(
        self,
        options: Options,
        measure: Callable[[Shares, Progress], Narrowed],
        recorded: Sequence[Narrowed] = (),
    ) -> None:
        self.options, self._points = options, tuple(recorded)
        offered = dict.fromkeys(options.widths.groups, options.shares)
        board = LayerBoard(offered, lambda share: f"{share:.0%}")
        words = (text("channels.note"), text("channels.measure.help"), text("channels.idle"))
        super().__init__(board, measure, *words)

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"ChannelGame({len(self.form.controls)} groups, {self.options.keep:.0%} of the multiply-adds)"

    def look(self, assignment: Shares) -> Shown:
        """Its multiply-adds, counted on the graph."""
        total = self.options.total(assignment)
        code = measure_call(assignment, "widths.groups")
        return Shown(draw_widths(total), total.says, widths_table(total), code)

    def compare(self) -> tuple[Any, str]:
        """Time against points lost."""
        return widths_view(self.options, self._points, self.tries)
