"""The mixed game: give each layer its bits, keep within the budget, and measure how well you guessed."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from statistics import mode
from typing import Any

import ipywidgets as widgets

from labkit.progress import Progress
from labkit.quantize.sensitivity import Choice
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import cell_html
from labkit.widgets.layer_board import LayerBoard
from labkit.widgets.mixed_drawing import draw_assignment
from labkit.widgets.mixed_rows import Assignment, Measured, assignment_table, points_view, tally
from labkit.widgets.panel import Panel
from labkit.widgets.view import View

Measure = Callable[[Assignment, Progress], Measured]


class MixedGame(Panel):
    """Bits for each layer under a budget, in bytes of all weights: predicted at once, measured at a click.

    MixedGame(choices, 150_000, measure, recorded)

    choices: from `labkit.quantize.sensitivity`. measure(assignment, progress) makes the model and returns its Point.
    `recorded` points stand beside one's own tries, which `tries` keeps.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        budget_bytes: int,
        measure: Measure,
        recorded: Sequence[Measured] = (),
    ) -> None:
        self.choices, self.budget_bytes, self.tries = tuple(choices), budget_bytes, list[Measured]()
        self._measure, self._points = measure, tuple(recorded)
        self.says, self.picture, self.layers = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for name in ("says", "picture", "layers"):
            getattr(self, name).add_class(f"labkit-{name}")
        super().__init__(
            LayerBoard(choices), self._try, self._code, View(draw=self._draw, note=text("mixed.note"))
        )
        self.run_button.description, self.run_button.tooltip = (
            text("mixed.measure"),
            text("mixed.measure.help"),
        )
        self.say(text("mixed.idle"))
        table = widgets.Accordion([self.layers], titles=[text("mixed.table")], selected_index=None)
        board, *rest = self.children
        self.set_trait("children", (board, self.says, self.picture, table, *rest))
        self.add_class("labkit-mixed")

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"MixedGame({len(self.form.controls)} layers, {self.budget_bytes:,} bytes)"

    def _form_changed(self, change: object = None) -> None:
        """Add up anew; nothing is run."""
        total = tally(self.choices, self.form.config, self.budget_bytes)
        self.says.value = f'<p role="status">{html.escape(total.says)}</p>'
        self.picture.value, self.layers.value = draw_assignment(total), assignment_table(total)
        self.command.value = cell_html(self._code(self.form.config))

    def _code(self, assignment: Assignment) -> str:
        usual = mode(assignment.values())
        others = "".join(f", {weight!r}: {bits}" for weight, bits in assignment.items() if bits != usual)
        return f"measure({{**dict.fromkeys(weights, {usual}){others}}}, silent)"

    def _try(
        self, assignment: Assignment, show: Callable[[Sequence[Any]], None], progress: Progress
    ) -> Measured:
        point = self._measure(assignment, progress)
        self.tries.append(point)
        show(self.tries)
        return point

    def _draw(self, rows: Sequence[Any]) -> tuple[Any, str]:
        """Whatever the job shows, all tries so far are what there is to see."""
        return points_view(self.choices, self.budget_bytes, self._points, self.tries)
