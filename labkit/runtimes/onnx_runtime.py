"""ONNX Runtime on the CPU: reads the whole graph first, fuses what it can, then runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from labkit.errors import ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class OrtSession(Session):
    """An InferenceSession with its own thread pool of exactly `options.threads`."""

    def __init__(self, variant: Variant, options: RunOptions, ort: Any, settings: Mapping[str, Any]) -> None:
        super().__init__(variant, options)
        told = ort.SessionOptions()
        told.log_severity_level = 3
        for name, value in settings.items():
            told.add_session_config_entry(name, value) if "." in name else setattr(told, name, value)
        try:
            self._session = ort.InferenceSession(variant.payload, told, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise ModelFileError(f"ONNX Runtime refuses {variant.name!r}: {str(error)[:300]}") from None
        self._names = [spec.name for spec in variant.outputs]

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out."""
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def close(self) -> None:
        """Drop the engine's session, and with it its copy of the weights."""
        self._session = None
        super().close()


class OnnxRuntime(Runtime):
    """ONNX Runtime; computes in the precision that the file declares (a quantized file runs as int8).

    Left to itself it also rounds the *float* inputs of a product whose weights alone are quantized (MatMulNBits) to
    int8, in groups. It is told not to: what a file leaves in float is computed in float32.
    """

    name = "onnxruntime"
    formats = ("onnx",)
    package = "onnxruntime"

    def engine(self) -> Any:
        """Import onnxruntime without its telemetry, which is on by default (since 1.29 on Linux too)."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        return super().engine()

    def settings(self, options: RunOptions) -> dict[str, Any]:
        """Fields of SessionOptions, and configuration entries (those with a dot)."""
        return {
            "intra_op_num_threads": options.threads,
            "inter_op_num_threads": 1,
            # A thread that spins while it waits burns the quota that the next one needs.
            "session.intra_op.allow_spinning": "0" if options.threads == 1 else "1",
            "session.qdq_matmulnbits_accuracy_level": "1",  # float32; the default, 4, is int8
        }

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Create the InferenceSession; ModelFileError if onnxruntime refuses the file."""
        return OrtSession(variant, options, self.engine(), self.settings(options))
