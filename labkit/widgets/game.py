"""A game: set something for every layer, see at once what it should come to, and measure how well you guessed."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from statistics import mode
from typing import Any, Protocol

import ipywidgets as widgets

from labkit.plots import pareto, table_html
from labkit.progress import Progress
from labkit.statistics import Interval
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Shown, cell_html
from labkit.widgets.layer_board import LayerBoard
from labkit.widgets.panel import Panel
from labkit.widgets.view import View


class Tried(Protocol):
    """What was measured of one assignment, now or before."""

    @property
    def assignment(self) -> Mapping[str, Any]:
        """What each layer was given."""

    @property
    def counts(self) -> str:
        """How many layers were given what."""

    @property
    def drop_pp(self) -> float:
        """What accuracy lost, in percentage points."""

    @property
    def drop_ci95(self) -> Interval:
        """Its interval."""


class Game(Panel):
    """A board that assigns something to every layer; a subclass says what it comes to, and how tries are shown.

    measure(assignment, progress) makes the model and returns what was measured, which `tries` keeps. Below the board
    stand a sentence, a drawing, and the same as a table (`look`); below the button all `tries` (`compare`) and a `note`
    on how to read them. `measure_help` is the button's, and `idle` what the status says before anything was measured.
    """

    name = "game"

    def __init__(
        self,
        board: LayerBoard,
        measure: Callable[[Any, Progress], Any],
        note: str,
        measure_help: str,
        idle: str,
    ) -> None:
        self.tries = list[Any]()
        self._measure = measure
        self.says, self.picture, self.layers = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for name in ("says", "picture", "layers"):
            getattr(self, name).add_class(f"labkit-{name}")
        view = View(draw=self._draw, note=note)
        super().__init__(board, self._try, lambda assignment: self.look(assignment).code, view)
        self.run_button.description = text("game.measure")
        self.run_button.tooltip = measure_help
        self.say(idle)
        table = widgets.Accordion([self.layers], titles=[text("game.table")], selected_index=None)
        form, *rest = self.children
        self.set_trait("children", (form, self.says, self.picture, table, *rest))
        self.add_class(f"labkit-{self.name}")

    def look(self, assignment: Any) -> Shown:
        """What this assignment should come to; nothing is run."""
        raise NotImplementedError

    def compare(self) -> tuple[Any, str]:
        """A figure and a table of all tries, beside what was recorded."""
        raise NotImplementedError

    def _form_changed(self, change: object = None) -> None:
        """Add up anew; nothing is run."""
        shown = self.look(self.form.config)
        self.says.value = f'<p role="status">{html.escape(shown.says)}</p>'
        self.picture.value, self.layers.value = shown.picture, shown.table
        self.command.value = cell_html(shown.code)

    def _try(self, assignment: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> Any:
        point = self._measure(assignment, progress)
        self.tries.append(point)
        show(self.tries)
        return point

    def _draw(self, rows: Sequence[Any]) -> tuple[Any, str]:
        """Whatever the job shows, all tries so far are what there is to see."""
        return self.compare()


def measure_call(assignment: Mapping[str, Any], names: str) -> str:
    """The line that measures an assignment: what most layers have, and those that differ; `names` lists all layers."""
    usual = mode(assignment.values())
    others = "".join(f", {name!r}: {value!r}" for name, value in assignment.items() if value != usual)
    return f"measure({{**dict.fromkeys({names}, {usual!r}){others}}}, silent)"


def tries_view(
    recorded: Sequence[Tried],
    tries: Sequence[Tried],
    figures: Callable[[Any], dict[str, Any]],
    cost: str,
    columns: Sequence[str],
) -> tuple[Any, str]:
    """A cost against the drop of the `recorded` models and of one's own `tries`, the last of them ringed; and a table.

    figures(point): its further columns, among them `cost`.
    """
    rows: list[dict[str, Any]] = []
    for number, point in enumerate([*recorded, *tries], 1 - len(recorded)):
        whose = text("game.yours" if number > 0 else "game.recorded")
        named = text("game.try", number=number, counts=point.counts) if number > 0 else point.counts
        shown = {
            "variant": named,
            "whose": whose,
            "runtime": whose,
        }  # the figure tells runtimes apart by shape
        drop = {"accuracy_drop_pp": point.drop_pp, "accuracy_drop_pp_ci95": tuple(point.drop_ci95)}
        rows.append({**shown, **figures(point), **drop})
    last = rows[-1]["variant"] if tries else None
    figure = pareto(rows, cost, "accuracy_drop_pp", chosen=last, mark=text("game.last"))
    return figure, table_html(rows, columns)
