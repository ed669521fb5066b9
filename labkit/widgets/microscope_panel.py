"""The microscope panel: choose a suspect, look, and see the first operator that departs."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.data import load_dataset
from labkit.microscope import MicroscopeReport, microscope
from labkit.progress import Progress, part
from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.conversion_views import microscope_view
from labkit.widgets.form import Form
from labkit.widgets.panel import Panel
from labkit.widgets.view import View
from labkit.zoo import load_model


class MicroscopePanel(Panel):
    """Hold model files against a reference, operator by operator.

    MicroscopePanel("resnet20@digits", {"A": "A.onnx", "B": "B.onnx"}, "digits")
    """

    def __init__(self, reference: str, suspects: Mapping[str, str | Path], dataset: str) -> None:
        self.reference, self.dataset = reference, dataset
        self.suspects = {name: str(path) for name, path in suspects.items()}
        names = tuple(self.suspects)
        help = text("microscope.suspect", reference=reference)
        fields = [
            ("suspect", str, knob(names[0], help, choices=names)),
            ("batch_size", int, knob(3, text("microscope.batch_size"), min=1, max=16)),
        ]
        namespace = {"__post_init__": check_knobs}
        choices = dataclasses.make_dataclass("Choices", fields, frozen=True, namespace=namespace)
        super().__init__(Form(choices), self._look, self._command, View(draw=microscope_view))
        self.add_class("labkit-microscope")

    def _look(
        self, config: Any, show: Callable[[Sequence[Any]], None], progress: Progress
    ) -> MicroscopeReport:
        progress(0.0, config.suspect)
        reference, other = load_model(self.reference), load_model(self.suspects[config.suspect])
        looking = part(progress, 0.2, 1.0)
        report = microscope(reference, other, load_dataset(self.dataset), config.batch_size, looking)
        show([report])
        return report

    def _command(self, config: Any) -> str:
        names = (self.reference, self.suspects[config.suspect], self.dataset)
        reference, suspect, dataset = map(
            json.dumps, names
        )  # in double quotes, as the shell takes the single ones
        code = (
            "import labkit as lk; from labkit.microscope import microscope; "
            f"report = microscope(lk.load_model({reference}), lk.load_model({suspect}), "
            f"lk.load_dataset({dataset}), batch_size={config.batch_size}); "
            "print(report.says); print(report.table())"
        )
        return shlex.join(["python", "-c", code])
