"""MindSpore on the CPU: a live Cell, called as its author calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from labkit.errors import ConfigError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class MindSporeSession(Session):
    """A Cell in inference mode."""

    def __init__(self, variant: Variant, options: RunOptions, mindspore: Any) -> None:
        super().__init__(variant, options)
        self._mindspore = mindspore
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
    _threads: ClassVar[int] = 0

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Wrap the Cell; ConfigError if this process has already begun with another number of threads."""
        mindspore = self.engine()
        cls = type(self)
        if cls._threads not in (0, options.threads):
            raise ConfigError(
                f"MindSpore takes its threads once in a process, here {cls._threads}, not {options.threads}: "
                "start again (a notebook: restart the kernel)"
            )
        if not cls._threads:
            mindspore.runtime.dispatch_threads_num(options.threads)
            cls._threads = options.threads
        return MindSporeSession(variant, options, mindspore)

    def load(self, variant: Variant, options: RunOptions | None = None) -> Session:
        """As every runtime does; without options, with the threads that this process has begun with."""
        return super().load(variant, options or RunOptions(threads=self._threads or 1))
