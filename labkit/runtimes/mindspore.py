"""MindSpore on the CPU: a live Cell, called as its author calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class MindSporeSession(Session):
    """A Cell in inference mode."""

    def __init__(self, variant: Variant, options: RunOptions, mindspore: Any) -> None:
        super().__init__(variant, options)
        self._mindspore = mindspore
        mindspore.runtime.dispatch_threads_num(options.threads)
        self._cell = variant.model.set_train(False)

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out; the Cell takes its inputs in the variant's order."""
        arrays = self.observe(feeds)
        return {spec.name: array for spec, array in zip(self.variant.outputs, arrays, strict=True)}

    def observe(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs in their order, whatever the variant calls them, and however many there are."""
        tensor = self._mindspore.Tensor
        result = self._cell(*(tensor(feeds[spec.name]) for spec in self.variant.inputs))
        results = result if isinstance(result, (tuple, list)) else (result,)
        return [value.asnumpy() for value in results]


class MindSpore(Runtime):
    """MindSpore's own executor: what a Cell computes before it is converted."""

    name = "mindspore"
    formats = ("mindspore",)
    package = "mindspore"
    install = "pip install 'labkit[mindspore]'"

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Wrap the Cell; nothing is copied."""
        return MindSporeSession(variant, options, self.engine())
