"""The mixed game's controls: for each layer, which of the measured widths its weight has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ipywidgets as widgets
from traitlets import Dict

from labkit.quantize.sensitivity import Choice
from labkit.widgets.catalogue import text

_LAYOUT = {"width": "320px"}
_STYLE = {"description_width": "200px"}


class LayerBoard(widgets.VBox):  # type: ignore[misc]
    """A dropdown for each layer, and a button for each width that sets all of them; `config` is weight → bits."""

    config = Dict()

    def __init__(self, choices: Sequence[Choice]) -> None:
        widths: dict[str, list[int]] = {}
        for choice in choices:
            widths.setdefault(choice.weight, []).append(choice.bits)
        self.controls = {weight: _dropdown(weight, bits) for weight, bits in widths.items()}
        self.buttons = {}
        for bits in sorted({choice.bits for choice in choices}, reverse=True):
            button = widgets.Button(
                description=text("mixed.all", bits=bits), tooltip=text("mixed.all.help", bits=bits)
            )
            button.add_class(f"labkit-all-{bits}")
            button.on_click(partial(self._clicked, bits))
            self.buttons[bits] = button
        board = widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([widgets.HBox(list(self.buttons.values())), board])
        self.add_class("labkit-form")
        for control in self.controls.values():
            control.observe(self._collect, "value")
        self._collect()

    def build(self) -> dict[str, int]:
        """What the dropdowns say: weight → bits."""
        return {weight: control.value for weight, control in self.controls.items()}

    def set_all(self, bits: int) -> None:
        """Every layer that was measured in so many bits gets them; one answer for all of them together."""
        for control in self.controls.values():
            control.unobserve(self._collect, "value")
            if bits in dict(control.options).values():
                control.value = bits
            control.observe(self._collect, "value")
        self._collect()

    def _clicked(self, bits: int, button: object) -> None:
        self.set_all(bits)

    def _collect(self, change: object = None) -> None:
        self.config = self.build()


def _dropdown(weight: str, widths: Sequence[int]) -> widgets.Dropdown:
    options = [(text("mixed.bits", bits=bits), bits) for bits in sorted(widths, reverse=True)]
    return widgets.Dropdown(options=options, description=weight, tooltip=weight, style=_STYLE, layout=_LAYOUT)
