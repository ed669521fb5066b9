"""The tour's panel: choose variants, runtimes, batch and threads, and see the Pareto front grow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.environment import current
from labkit.errors import ConfigError
from labkit.measure import compare
from labkit.runtimes import RUNTIMES
from labkit.study import Study
from labkit.technique import knob
from labkit.widgets.catalogue import text
from labkit.widgets.command import measure_command, technique_command
from labkit.widgets.compare_work import Chain, Workbench
from labkit.widgets.form import Form
from labkit.widgets.panel import Panel
from labkit.widgets.view import View


class ComparePanel(Panel):
    """Variants of one model, made and measured against it, live.

    ComparePanel("lenet5@digits", "digits", {"onnx": (ExportOnnx(),), "int8": (ExportOnnx(), QuantizeInt8())})

    `recorded` is a study, to be shown at once.
    """

    def __init__(
        self, model: str, dataset: str, chains: Mapping[str, Chain], recorded: str | Path | None = None
    ) -> None:
        self.workbench = Workbench(model, dataset, chains)
        super().__init__(
            Form(_choices(model, tuple(chains))),
            self.workbench.measure_each,
            self._commands,
            View(note=text("compare.pace")),
            recorded=None if recorded is None else lambda: compare(Study(recorded).last_run()).to_rows(),
        )

    def _commands(self, config: Any) -> str:
        bench, lines = self.workbench, []
        for name in config.variants:
            source = bench.model
            for step, technique in enumerate(bench.chains[name], start=1):
                out = name if step == len(bench.chains[name]) else f"{name}-step{step}"
                lines.append(technique_command(technique, source, bench.dataset, out))
                source = out
        sources = [bench.model, *config.variants]
        runtimes = dict.fromkeys(["torch", *config.runtimes])  # the first on the first is the baseline
        settings = (bench.dataset, config.batch_size, config.threads)
        return "\n".join([*lines, measure_command(sources, runtimes, *settings)])


def _choices(model: str, variants: tuple[str, ...]) -> type[Any]:
    """The panel's settings as a dataclass of knobs; what is offered depends on this machine."""
    runtimes = tuple(runtime.name for runtime in RUNTIMES if runtime.is_available().ok)
    fields = [
        ("variants", tuple, knob(variants, text("compare.variants", baseline=model), choices=variants)),
        ("runtimes", tuple, knob(runtimes, text("compare.runtimes"), choices=runtimes)),
        ("batch_size", int, knob(1, text("compare.batch_size"), min=1, max=64)),
        ("threads", int, knob(1, text("compare.threads"), min=1, max=max(2, current().threads))),
    ]
    return dataclasses.make_dataclass("Choices", fields, frozen=True, namespace={"__post_init__": _check})


def _check(config: Any) -> None:
    """At least one of each; Candidate checks the numbers."""
    for name in ("variants", "runtimes"):
        if not getattr(config, name):
            raise ConfigError(f"Choices.{name}=() {text('several.none')}")
