"""The engines that execute a variant, one file each. Adding one: a file, and a line in RUNTIMES."""

from __future__ import annotations

from labkit.errors import ConfigError, nearest
from labkit.runtimes.base import PRECISIONS, Availability, RunOptions, Runtime, Session, is_installed
from labkit.runtimes.litert import LiteRt
from labkit.runtimes.mindspore import MindSpore
from labkit.runtimes.onnx_runtime import OnnxRuntime
from labkit.runtimes.openvino import OpenVino
from labkit.runtimes.tensorflow import TensorFlow
from labkit.runtimes.tensorrt import TensorRt
from labkit.runtimes.torch_eager import TorchEager
from labkit.variant import Variant

RUNTIMES: tuple[Runtime, ...] = (
    TorchEager(),
    OnnxRuntime(),
    OpenVino(),
    TensorFlow(),
    LiteRt(),
    MindSpore(),
    TensorRt(),
)

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "Availability",
    "RunOptions",
    "Runtime",
    "Session",
    "get_runtime",
    "is_installed",
    "reference_runtime",
]


def get_runtime(name: str) -> Runtime:
    """The runtime of that name; ConfigError with a suggestion otherwise."""
    for runtime in RUNTIMES:
        if runtime.name == name:
            return runtime
    raise ConfigError(f"unknown runtime {name!r}; {nearest(name, [runtime.name for runtime in RUNTIMES])}")


def reference_runtime(variant: Variant) -> Runtime:
    """The one runtime per format whose numbers decide whether two variants agree."""
    return next(runtime for runtime in RUNTIMES if variant.format in runtime.formats)
