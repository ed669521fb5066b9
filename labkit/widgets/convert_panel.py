"""The conversion panel: choose a network, a format and how much error you accept, and see the proof, hop by hop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from labkit.convert import tolerance
from labkit.convert.edges import is_open
from labkit.technique import check_knobs, knob
from labkit.variant import FORMATS
from labkit.widgets.catalogue import text
from labkit.widgets.command import convert_command
from labkit.widgets.conversion_views import parity_view
from labkit.widgets.convert_work import Converting
from labkit.widgets.form import Form
from labkit.widgets.format_way import way
from labkit.widgets.panel import Panel
from labkit.widgets.view import View


class ConvertPanel(Panel):
    """Convert a PyTorch network of the zoo, and prove every hop on samples of `dataset`, live.

    ConvertPanel(["lenet5@digits", "resnet20@digits"], "digits")
    """

    def __init__(self, models: Sequence[str], dataset: str) -> None:
        self.work = Converting(dataset)
        super().__init__(
            Form(_choices(tuple(models))), self.work.convert, self._command, View(draw=parity_view)
        )
        self.add_class("labkit-convert")

    def _command(self, config: Any) -> str:
        changed = config.tolerance if config.tolerance != tolerance("float32") else None
        return convert_command(config.model, config.to, self.work.dataset, changed)


def _choices(models: tuple[str, ...]) -> type[Any]:
    """The panel's settings as a dataclass of knobs; the formats are those that can be reached here from PyTorch."""
    ways = {each.name: way("torch", each.name) for each in FORMATS}
    formats = [name for name, path in ways.items() if path and is_open(path)]
    first = "openvino" if "openvino" in formats else "onnx"
    rounding = tolerance("float32")
    fields = [
        ("model", str, knob(models[0], text("convert.model"), choices=models)),
        ("to", str, knob(first, text("convert.to"), choices=formats)),
        ("tolerance", float, knob(rounding, text("convert.tolerance"), above=0.0, max=1.0)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("Choices", fields, frozen=True, namespace=namespace)
