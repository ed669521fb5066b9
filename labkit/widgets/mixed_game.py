"""The mixed game: give each layer its bits, keep within the budget, and measure how well you guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from labkit.progress import Progress
from labkit.quantize.sensitivity import Choice
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Shown
from labkit.widgets.game import Game, measure_call
from labkit.widgets.layer_board import LayerBoard
from labkit.widgets.mixed_drawing import draw_assignment
from labkit.widgets.mixed_rows import Assignment, Measured, assignment_table, points_view, tally

Measure = Callable[[Assignment, Progress], Measured]


class MixedGame(Game):
    """Bits for each layer under a budget, in bytes of all weights: predicted at once, measured at a click.

    MixedGame(choices, 150_000, measure, recorded)

    choices: from `labkit.quantize.sensitivity`. measure(assignment, progress) makes the model and returns its Point.
    `recorded` points stand beside one's own tries, which `tries` keeps.
    """

    name = "mixed"

    def __init__(
        self,
        choices: Sequence[Choice],
        budget_bytes: int,
        measure: Measure,
        recorded: Sequence[Measured] = (),
    ) -> None:
        self.choices, self.budget_bytes, self._points = tuple(choices), budget_bytes, tuple(recorded)
        widths: dict[str, list[int]] = {}
        for choice in choices:
            widths.setdefault(choice.weight, []).append(choice.bits)
        board = LayerBoard(widths, lambda bits: text("mixed.bits", bits=bits))
        super().__init__(board, measure, text("mixed.note"), text("mixed.measure.help"), text("mixed.idle"))

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"MixedGame({len(self.form.controls)} layers, {self.budget_bytes:,} bytes)"

    def look(self, assignment: Assignment) -> Shown:
        """Its bytes and its noise, added up."""
        total = tally(self.choices, assignment, self.budget_bytes)
        code = measure_call(assignment, "weights")
        return Shown(draw_assignment(total), total.says, assignment_table(total), code)

    def compare(self) -> tuple[Any, str]:
        """Size against points lost."""
        return points_view(self.choices, self.budget_bytes, self._points, self.tries)
