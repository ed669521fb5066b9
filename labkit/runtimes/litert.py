"""LiteRT (TensorFlow Lite) on the CPU: a small interpreter that walks a flat list of operators."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from labkit.errors import ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session, muted
from labkit.variant import Array, Variant


class LiteRtSession(Session):
    """One interpreter; its tensors are resized when a batch of another size comes."""

    def __init__(self, variant: Variant, options: RunOptions, litert: Any) -> None:
        super().__init__(variant, options)
        try:
            with muted():
                self._interpreter = litert.Interpreter(
                    model_content=variant.payload, num_threads=options.threads
                )
            self._runner = Signature(self._interpreter, variant)
        except Exception as error:  # RuntimeError, ValueError, SystemError
            raise ModelFileError(f"LiteRT refuses {variant.name!r}: {str(error)[:300]}") from None
        self._lock = threading.Lock()  # an interpreter has one set of tensors

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out (copied: the interpreter's own buffers are used again)."""
        with self._lock:
            return self._runner.run(feeds)

    def close(self) -> None:
        """Drop the interpreter."""
        self._interpreter = self._runner = None  # type: ignore[assignment]
        super().close()


class Signature:
    """Feeds an interpreter by the names of its signature, or by those of its tensors where it has none."""

    def __init__(self, interpreter: Any, variant: Variant) -> None:
        self._interpreter = interpreter
        self._inputs = {item["name"]: item for item in tensors(interpreter, "input")}
        self._outputs = {item["name"]: item["index"] for item in tensors(interpreter, "output")}
        self._names = [spec.name for spec in variant.outputs]
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Resize where the shapes are new, set the inputs, invoke, copy the outputs."""
        interpreter = self._interpreter
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != self._shapes:
            for name, shape in shapes.items():
                interpreter.resize_tensor_input(self._inputs[name]["index"], list(shape))
            with muted():  # it announces its delegate
                interpreter.allocate_tensors()
            self._shapes = shapes
        for name, array in feeds.items():
            interpreter.set_tensor(self._inputs[name]["index"], np.ascontiguousarray(array))
        interpreter.invoke()
        return {name: interpreter.get_tensor(self._outputs[name]) for name in self._names}


def tensors(interpreter: Any, side: str) -> list[dict[str, Any]]:
    """The interpreter's inputs or outputs (`side`), named as its one signature names them, if it has one."""
    details: list[dict[str, Any]] = getattr(interpreter, f"get_{side}_details")()
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return details
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    named = getattr(runner, f"get_{side}_details")()
    names = {item["index"]: name for name, item in named.items()}
    return [{**item, "name": names.get(item["index"], item["name"])} for item in details]


class LiteRt(Runtime):
    """LiteRT's interpreter with its XNNPACK kernels; computes in what the file declares."""

    name = "litert"
    formats = ("tflite",)
    package = "ai_edge_litert.interpreter"
    install = "pip install 'labkit[tensorflow]'"

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Make the interpreter; ModelFileError if it refuses the file."""
        return LiteRtSession(variant, options, self.engine())
