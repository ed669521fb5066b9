"""The soft-target explorer: choose an image, raise the temperature, and see the teacher's doubts come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from labkit.errors import DataError
from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form
from labkit.widgets.soft_target_drawing import draw_soft_target
from labkit.widgets.soft_target_rows import SoftTarget, soft_target_says, soft_target_table

HOTTEST = 20.0


class SoftTargetExplorer(Explorer):
    """A digit beside its teacher's answer, and a temperature to move.

    SoftTargetExplorer(ask(teacher, data.split("validation").take([3, 18]), data.labels), temperature=4.0)

    told: name → SoftTarget, from `ask`. `start` gives the controls (image, temperature) other first values. Raises
    DataError where nothing was asked.
    """

    name = "soft-target"

    def __init__(self, told: Mapping[str, SoftTarget], **start: Any) -> None:
        if not told:
            raise DataError("the teacher was asked about no image: give ask() at least one")
        self.told = told
        super().__init__(Form(_settings(tuple(told)), **start))

    def look(self, config: Any) -> Shown:
        """The image and both answers at these settings, drawn, said and tabled."""
        told, temperature = self.told[config.image], config.temperature
        return Shown(
            draw_soft_target(told, temperature),
            soft_target_says(told, temperature),
            soft_target_table(told, temperature),
            f"draw_soft_target(told[{config.image!r}], temperature={temperature:.1f})",
        )


def _settings(images: tuple[str, ...]) -> type[Any]:
    fields = [
        ("image", str, knob(images[0], text("soft.choose"), choices=images)),
        ("temperature", float, knob(1.0, text("soft.temperature"), above=0.0, max=HOTTEST)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("SoftTargetSettings", fields, frozen=True, namespace=namespace)
