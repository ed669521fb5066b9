"""OpenVINO on the CPU: compiles the graph for this processor, with int8 and bfloat16 instructions where it has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from labkit.errors import ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant

_ELEMENT_TYPE = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoSession(Session):
    """A compiled model and one request; precision is pinned, because OpenVINO picks bfloat16 by itself."""

    def __init__(
        self, variant: Variant, options: RunOptions, openvino: Any, settings: Mapping[str, Any]
    ) -> None:
        super().__init__(variant, options)
        core = openvino.Core()
        try:
            model = read_openvino(core, openvino, variant)
            self._request: Any = core.compile_model(model, "CPU", dict(settings)).create_infer_request()
        except Exception as error:  # openvino raises RuntimeError and kinds of its own
            raise ModelFileError(f"OpenVINO refuses {variant.name!r}: {str(error)[-300:]}") from None
        self._names = [spec.name for spec in variant.outputs]

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out (copied: the request's own buffers are used again)."""
        results = self._request.infer(dict(feeds), share_inputs=True)
        return {name: results[index].copy() for index, name in enumerate(self._names)}

    def close(self) -> None:
        """Drop the request, and with it the compiled model."""
        self._request = None
        super().close()


def read_openvino(core: Any, openvino: Any, variant: Variant) -> Any:
    """OpenVINO's graph of an ONNX file or of its own pair, `model.xml` (operators) and `model.bin` (weights)."""
    if variant.format == "onnx":
        return core.read_model(variant.payload)
    weights = np.frombuffer(variant.model["model.bin"], np.uint8)
    return core.read_model(variant.model["model.xml"], openvino.Tensor(weights) if len(weights) else b"")


class OpenVino(Runtime):
    """OpenVINO's CPU plugin; a quantized ONNX file runs as real int8.

    Left to itself it also rounds the *float* inputs of a product whose weights alone are quantized to int8, in groups.
    In float32 it is told not to; in bfloat16 it may.
    """

    name = "openvino"
    formats = ("onnx", "openvino")
    precisions = ("float32", "bfloat16")
    package = "openvino"
    install = "pip install 'labkit[openvino]'"

    def engine(self) -> Any:
        """Import openvino as where its optional telemetry is not installed: its opt-out writes into the home itself."""
        hidden: dict[str, Any] = sys.modules
        if "openvino" in hidden or "openvino_telemetry" in hidden:
            return super().engine()
        hidden["openvino_telemetry"] = None  # an import of it now fails, as openvino expects that it may
        try:
            return super().engine()
        finally:
            del hidden["openvino_telemetry"]

    def settings(self, options: RunOptions) -> dict[str, Any]:
        """Properties for `compile_model`."""
        told: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _ELEMENT_TYPE[options.precision],
            "ENABLE_CPU_PINNING": False,
        }
        if options.precision == "float32":
            told["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        return told

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Compile the model; ModelFileError if OpenVINO refuses the file."""
        return OpenVinoSession(variant, options, self.engine(), self.settings(options))
