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
    """The shortest path of converters that are available here: the first of `find_paths`, with its errors."""
    return find_paths(source, target)[0]


def find_paths(source: str, target: str) -> list[Path]:
    """Every path of converters that are available here and meets no format twice, the shortest first.

    Raises ConfigError for unknown formats, equal ones, or if no path exists anywhere; UnavailableError, with the
    install line, if one exists but its packages are not here.
    """
    source, target = get_format(source).name, get_format(target).name
    if source == target:
        raise ConfigError(f"the model is {target} already: nothing to convert")
    found = every_path(source, target)
    if not found:
        reach = ", ".join(reachable(source)) or "none"
        raise ConfigError(
            f"no conversion leads from {source} to {target}; from {source} one reaches: {reach}"
        )
    here = [path for path in found if is_open(path)]
    if not here:
        missing = next(edge for edge in found[0] if not edge.is_available().ok)
        available = missing.is_available()
        raise UnavailableError(
            f"{source} → {target} goes through {missing.name}: {available.reason}; {available.install}"
        )
    return here


def is_open(path: Path) -> bool:
    """Whether all converters of a path are available here."""
    return all(edge.is_available().ok for edge in path)


def reachable(source: str) -> list[str]:
    """The formats that some path leads to from `source`, installed or not, in FORMATS' order."""
    return [each.name for each in FORMATS if each.name != source and every_path(source, each.name)]


def every_path(source: str, target: str) -> list[Path]:
    """All paths that meet no format twice, installed or not; breadth first, so that the shorter ones come first."""
    waiting: deque[tuple[tuple[str, ...], Path]] = deque([((source,), ())])
    found = []
    while waiting:
        formats, path = waiting.popleft()
        if formats[-1] == target:
            found.append(path)
            continue
        for edge in CONVERTERS:
            if formats[-1] in edge.takes and edge.target not in formats:
                waiting.append(((*formats, edge.target), (*path, edge)))
    return found
