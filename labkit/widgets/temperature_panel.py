"""The temperature panel: temperature and alpha answer at once from a recording, and a button trains a student here."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from labkit.progress import Progress
from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.form import Form
from labkit.widgets.panel import Panel
from labkit.widgets.soft_target_explorer import HOTTEST
from labkit.widgets.temperature_drawing import draw_temperatures
from labkit.widgets.temperature_rows import Sweep, temperature_says, temperature_table, tries_table
from labkit.widgets.view import View

Measure = Callable[[float, float, int, Progress], int]


class TemperaturePanel(Panel):
    """Students by temperature and alpha: recorded ones at once, one's own at a click.

    TemperaturePanel(recorded, measure, command)

    measure(temperature, alpha, seed, progress) trains a student and returns how many images it gets wrong;
    command(settings) is what to type into a terminal for the same. `tries` keeps what was measured.
    """

    def __init__(self, recorded: Sweep, measure: Measure, command: Callable[[Any], str]) -> None:
        self.recorded, self.tries = recorded, list[tuple[Any, int, int]]()
        self._measure = measure
        self.says, self.picture, self.rows = (
            widgets.HTML(),
            widgets.HTML(),
            widgets.HTML(temperature_table(recorded)),
        )
        for name, part in {"says": self.says, "picture": self.picture, "recorded-rows": self.rows}.items():
            part.add_class(f"labkit-{name}")
        form = Form(_Settings)
        for control in form.controls.values():
            control.layout.width = "32em"
        super().__init__(form, self._try, command, View(draw=self._draw))
        self.run_button.description, self.run_button.tooltip = (
            text("heat.measure"),
            text("heat.measure.help"),
        )
        self.say(text("heat.idle"))
        table = widgets.Accordion([self.rows], titles=[text("heat.table")], selected_index=None)
        self.set_trait("children", (form, self.says, self.picture, table, *self.children[1:]))
        self.add_class("labkit-temperature")

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"TemperaturePanel({len(self.recorded.sweep)} settings)"

    def _form_changed(self, change: object = None) -> None:
        """Look it up anew; nothing is run."""
        super()._form_changed()
        settings = self.form.config
        if settings is None:
            return  # the form says what is wrong
        said = temperature_says(self.recorded, settings.temperature, settings.alpha)
        self.says.value = f'<p role="status">{html.escape(said)}</p>'
        self.picture.value = draw_temperatures(self.recorded, settings.temperature, settings.alpha)

    def _try(self, settings: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> int:
        """Train with the next seed that these settings have not had."""
        seed = sum(each == settings for each, _, _ in self.tries)
        errors = self._measure(settings.temperature, settings.alpha, seed, progress)
        self.tries.append((settings, seed, errors))
        show(self.tries)
        return errors

    def _draw(self, rows: Sequence[Any]) -> tuple[str, str]:
        """Whatever the job shows, all tries so far are what there is to see."""
        if not self.tries:
            return "", f"<p>{html.escape(text('heat.none'))}</p>"
        return "", tries_table(self.recorded, self.tries)


@dataclasses.dataclass(frozen=True)
class _Settings:
    temperature: float = knob(8.0, text("heat.temperature"), above=0.0, max=HOTTEST)
    alpha: float = knob(1.0, text("heat.alpha"), min=0.0, max=1.0)

    def __post_init__(self) -> None:
        check_knobs(self)
