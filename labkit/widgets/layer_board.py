"""A game's controls: for each layer, which of the values on offer it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets as widgets
from traitlets import Dict

from labkit.widgets.catalogue import text

_LAYOUT = {"width": "320px"}
_STYLE = {"description_width": "200px"}


class LayerBoard(widgets.VBox):  # type: ignore[misc]
    """A dropdown for each layer, and a button for each value that sets all of them; `config` is layer → value.

    offered: layer → the numbers to choose from, the largest being where it starts; said(value) is how one is written.
    """

    config = Dict()

    def __init__(self, offered: Mapping[str, Sequence[float]], said: Callable[[Any], str]) -> None:
        self.controls = {name: _dropdown(name, values, said) for name, values in offered.items()}
        self.buttons = {}
        for value in sorted({value for values in offered.values() for value in values}, reverse=True):
            button = widgets.Button(
                description=text("game.all", value=said(value)),
                tooltip=text("game.all.help", value=said(value)),
            )
            button.add_class(f"labkit-all-{value:g}".replace(".", "_"))
            button.on_click(partial(self._clicked, value))
            self.buttons[value] = button
        board = widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([widgets.HBox(list(self.buttons.values())), board])
        self.add_class("labkit-form")
        for control in self.controls.values():
            control.observe(self._collect, "value")
        self._collect()

    def build(self) -> dict[str, Any]:
        """What the dropdowns say: layer → value."""
        return {name: control.value for name, control in self.controls.items()}

    def set_all(self, value: float) -> None:
        """Every layer that is offered this value gets it; one answer for all of them together."""
        for control in self.controls.values():
            control.unobserve(self._collect, "value")
            if value in dict(control.options).values():
                control.value = value
            control.observe(self._collect, "value")
        self._collect()

    def _clicked(self, value: float, button: object) -> None:
        self.set_all(value)

    def _collect(self, change: object = None) -> None:
        self.config = self.build()


def _dropdown(name: str, values: Sequence[float], said: Callable[[Any], str]) -> widgets.Dropdown:
    options = [(said(value), value) for value in sorted(values, reverse=True)]
    return widgets.Dropdown(options=options, description=name, tooltip=name, style=_STYLE, layout=_LAYOUT)
