"""The format graph: formats are its nodes, converters its edges, and a conversion is a path.

    torch → pt2, torch → onnx, onnx → openvino, onnx → tensorflow → tflite, …

An explicit list: adding an edge is a file and a line here.
"""

from __future__ import annotations

from collections import deque

from labkit.convert.converter import Converter
from labkit.convert.keras_to_onnx import KerasToOnnx
from labkit.convert.keras_to_tensorflow import KerasToTensorFlow
from labkit.convert.mindspore_to_onnx import MindSporeToOnnx
from labkit.convert.onnx_to_openvino import OnnxToOpenVino
from labkit.convert.onnx_to_tensorflow import OnnxToTensorFlow
from labkit.convert.onnx_to_tensorrt import OnnxToTensorRt
from labkit.convert.tensorflow_to_onnx import TensorFlowToOnnx
from labkit.convert.tensorflow_to_tflite import TensorFlowToTflite
from labkit.convert.tflite_to_onnx import TfliteToOnnx
from labkit.convert.torch_to_onnx import ExportOnnx
from labkit.convert.torch_to_pt2 import ExportPt2
from labkit.errors import ConfigError, UnavailableError
from labkit.variant import FORMATS, get_format

CONVERTERS: tuple[type[Converter], ...] = (
    ExportPt2,
    ExportOnnx,
    KerasToOnnx,
    KerasToTensorFlow,
    TensorFlowToOnnx,
    TensorFlowToTflite,
    TfliteToOnnx,
    MindSporeToOnnx,
    OnnxToOpenVino,
    OnnxToTensorFlow,
    OnnxToTensorRt,
)

Path = tuple[type[Converter], ...]


def find_path(source: str, target: str) -> Path:
    """The shortest path of converters that are available here, found by breadth-first search.

    Raises ConfigError for unknown formats, equal ones, or if no path exists anywhere; UnavailableError, with the
    install line, if one exists but its packages are not here.
    """
    source, target = get_format(source).name, get_format(target).name
    if source == target:
        raise ConfigError(f"the model is {target} already: nothing to convert")
    path = _search(source, target, [each for each in CONVERTERS if each.is_available().ok])
    if path is not None:
        return path
    path = _search(source, target, CONVERTERS)
    if path is None:
        reach = ", ".join(reachable(source)) or "none"
        raise ConfigError(
            f"no conversion leads from {source} to {target}; from {source} one reaches: {reach}"
        )
    missing = next(each for each in path if not each.is_available().ok)
    available = missing.is_available()
    raise UnavailableError(
        f"{source} → {target} goes through {missing.name}: {available.reason}; {available.install}"
    )


def reachable(source: str) -> list[str]:
    """The formats that some path leads to from `source`, installed or not, in FORMATS' order."""
    return [each.name for each in FORMATS if each.name != source and _search(source, each.name, CONVERTERS)]


def _search(
    source: str, target: str, edges: list[type[Converter]] | tuple[type[Converter], ...]
) -> Path | None:
    waiting: deque[tuple[str, Path]] = deque([(source, ())])
    seen = {source}
    while waiting:
        format_, path = waiting.popleft()
        if format_ == target:
            return path
        for edge in edges:
            if format_ in edge.takes and edge.target not in seen:
                seen.add(edge.target)
                waiting.append((edge.target, (*path, edge)))
    return None
