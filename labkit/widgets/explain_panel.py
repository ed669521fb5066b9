"""The detective's panel: choose a file that ought to be faster, and be told where its time goes, and why."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.data import load_dataset
from labkit.environment import current
from labkit.explain import Explanation, explain
from labkit.progress import Progress, part
from labkit.runtimes import RUNTIMES
from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.explain_view import explain_view
from labkit.widgets.form import Form
from labkit.widgets.panel import Panel
from labkit.widgets.view import View
from labkit.zoo import load_model

_PROFILED = ("onnxruntime", "openvino")


class ExplainPanel(Panel):
    """Ask of model files why they are not faster than a baseline, on samples of `dataset`.

    ExplainPanel({"A": "A.onnx", "B": "B.onnx"}, "float32.onnx", "digits")
    """

    def __init__(self, suspects: Mapping[str, str | Path], against: str | Path, dataset: str) -> None:
        self.suspects = {name: str(path) for name, path in suspects.items()}
        self.against, self.dataset = str(against), dataset
        super().__init__(
            Form(_settings(tuple(self.suspects), Path(self.against).name)),
            self._explain,
            self._command,
            View(draw=explain_view),
        )
        self.add_class("labkit-explain")

    def _explain(self, config: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> Explanation:
        progress(0.0, config.suspect)
        found = explain(
            load_model(self.suspects[config.suspect]),
            load_dataset(self.dataset),
            load_model(self.against),
            config.runtime,
            config.batch_size,
            config.threads,
            part(progress, 0.05, 1.0),
        )
        show([found])
        return found

    def _command(self, config: Any) -> str:
        words = ["labkit", "explain", self.suspects[config.suspect], "--against", self.against]
        words += ["--runtime", config.runtime, "--dataset", self.dataset]
        return shlex.join([*words, "--batch-size", str(config.batch_size), "--threads", str(config.threads)])


def _settings(suspects: tuple[str, ...], against: str) -> type[Any]:
    """The panel's settings as a dataclass of knobs; what is offered depends on this machine."""
    runtimes = tuple(each.name for each in RUNTIMES if each.name in _PROFILED and each.is_available().ok)
    fields = [
        ("suspect", str, knob(suspects[0], text("explain.suspect", against=against), choices=suspects)),
        ("runtime", str, knob(runtimes[0], text("explain.runtime"), choices=runtimes)),
        ("batch_size", int, knob(8, text("compare.batch_size"), min=1, max=64)),
        ("threads", int, knob(1, text("compare.threads"), min=1, max=max(8, 4 * current().threads))),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("Choices", fields, frozen=True, namespace=namespace)
