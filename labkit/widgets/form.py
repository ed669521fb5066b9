"""A form that a technique gets for free: its fields say what they are, and what is allowed.

    form = Form(PruneMagnitude, show=("sparsity", "scope"), sparsity=0.7)
    technique = form.build()          # PruneMagnitude(sparsity=0.7), or its ConfigError

Each field becomes the plainest control that fits: choices a dropdown, numbers among them or fractions between two
ends a slider, any other number a box. A box takes what is typed and says what is wrong with it; a silent correction
would teach nothing.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
from traitlets import Any as AnyTrait
from traitlets import Tuple

from labkit.technique import knobs

_STYLE = {"description_width": "9.5em"}
_LAYOUT = {"width": "22em"}
_SLIDER_STEPS = 100
_MOST_SLIDER_INTEGERS = 64


class Form(widgets.VBox):  # type: ignore[misc]
    """Controls for a dataclass whose fields are `knob`s; `config` is what they say, None while it is invalid.

    `show` names the fields that get a control (by default all), `start` gives fields another first value.
    """

    config = AnyTrait(None, allow_none=True)

    def __init__(self, config_class: type[Any], show: tuple[str, ...] = (), **start: Any) -> None:
        self._class, self._start = config_class, start
        fields = {field.name: field for field in knobs(config_class)}
        self.controls = {
            name: _control(field, start.get(name, field.default))
            for name, field in fields.items()
            if name in (show or fields)
        }
        self._help = {name: fields[name].metadata["help"] for name in self.controls}
        self._notes = {  # "" is for errors of no one field
            name: widgets.HTML(layout={"margin": "2px 2px 2px 1em"}) for name in (*self.controls, "")
        }
        rows = [widgets.HBox([control, self._notes[name]]) for name, control in self.controls.items()]
        super().__init__([*rows, self._notes[""]])
        self.add_class("labkit-form")
        for control in self.controls.values():
            control.observe(self._update, "value")
        self._update()

    def build(self) -> Any:
        """What the controls say, as an instance; its ConfigError is shown beside the field, and raised."""
        values = {name: _read(control) for name, control in self.controls.items()}
        try:
            made = self._class(**{**self._start, **values})
        except Exception as error:
            self._say(error)
            raise
        self._say(None)
        return made

    def _update(self, change: object = None) -> None:
        """After each change, whatever was typed: never raises, because nobody would see it."""
        made = None
        with contextlib.suppress(Exception):
            made = self.build()
        self.config = made

    def _say(self, error: Exception | None) -> None:
        """Each field's help beside it; in the place of one of them, or at the end, what is wrong."""
        wrong = next((name for name in self.controls if f".{name}=" in str(error)), "") if error else None
        for name, note in self._notes.items():
            if name == wrong:
                note.value = f'<b class="labkit-error" role="alert">✗ {html.escape(str(error))}</b>'
            else:
                note.value = f'<span class="labkit-help">{html.escape(self._help.get(name, ""))}</span>'


class Several(widgets.HBox):  # type: ignore[misc]
    """Checkboxes, any number of them ticked; `value` is a tuple of the ticked names, in their given order."""

    value = Tuple()

    def __init__(self, names: tuple[str, ...], value: tuple[str, ...], description: str) -> None:
        self.boxes = {name: widgets.Checkbox(name in value, description=name, indent=False) for name in names}
        for box in self.boxes.values():
            box.layout.width = "auto"
            box.observe(self._collect, "value")
        layout = {"width": _STYLE["description_width"], "justify_content": "flex-end"}
        title = widgets.Label(description, layout=layout)
        super().__init__([title, *self.boxes.values()], value=tuple(value))
        self.observe(self._tick, "value")

    def _collect(self, change: object) -> None:
        self.value = tuple(name for name, box in self.boxes.items() if box.value)

    def _tick(self, change: Any) -> None:
        for name, box in self.boxes.items():
            box.value = name in change.new


class Words(widgets.Text):  # type: ignore[misc]
    """A box for a text; left empty, it says the empty text, and not that there is none."""


def _control(field: dataclasses.Field[Any], start: Any) -> widgets.Widget:
    """The plainest control for one field."""
    meta = field.metadata
    unit = f" ({meta['unit']})" if meta["unit"] else ""
    name = field.name.replace("_", " ") + unit
    common = {"description": name, "tooltip": meta["help"], "style": _STYLE, "layout": _LAYOUT}
    if isinstance(start, tuple):
        return Several(tuple(meta["choices"]), start, name)
    if meta["choices"] and isinstance(start, (int, float)):
        options = [
            (f"{each:.0%}" if isinstance(each, float) else f"{each:,}", each) for each in meta["choices"]
        ]
        return widgets.SelectionSlider(options=options, value=start, **common)
    if meta["choices"]:
        return widgets.Dropdown(options=list(meta["choices"]), value=start, **common)
    if isinstance(start, bool):
        return widgets.Checkbox(value=start, **common)
    if isinstance(start, int):
        if None not in (meta["min"], meta["max"]) and meta["max"] - meta["min"] <= _MOST_SLIDER_INTEGERS:
            return widgets.IntSlider(start, int(meta["min"]), int(meta["max"]), **common)
        return widgets.IntText(start, **common)
    if isinstance(start, float):
        if limits := _slider_limits(meta, start):
            return widgets.FloatSlider(start, **limits, **common)
        return widgets.FloatText(start, **common)
    if isinstance(start, str):
        return Words(start, **common)
    return widgets.Text("" if start is None else str(start), **common)


def _slider_limits(meta: Mapping[str, Any], start: float) -> dict[str, float] | None:
    """min, max and step, if a hundredth of the range is fine enough; an excluded end is one step away."""
    low = meta["min"] if meta["min"] is not None else meta["above"]
    high = meta["max"] if meta["max"] is not None else meta["below"]
    if low is None or high is None:
        return None
    step = (high - low) / _SLIDER_STEPS
    steps = (start - low) / step
    if not math.isclose(steps, round(steps), abs_tol=1e-6):
        return None
    return {
        "min": low if meta["min"] is not None else low + step,
        "max": high if meta["max"] is not None else high - step,
        "step": step,
    }


def _read(control: widgets.Widget) -> Any:
    """The control's value; of a text box a number where it is one, and None where it is empty."""
    if isinstance(control, Words) or not isinstance(control, widgets.Text):
        return control.value
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(control.value)
    return control.value or None
