"""What tests of quantization ask about a model and its file."""

from __future__ import annotations

from collections import Counter

import onnx
import onnxruntime as ort

from labkit.progress import silent
from labkit.quantize.calibration.calibrate import calibrate

ENGINES = ("onnxruntime", "openvino")


def ranges_of(variant, model, names, samples, calibrator="minmax", percentile=None):
    found = calibrate(variant, model, names, samples, calibrator, percentile, silent)
    return {name: each.range for name, each in found.items()}


def operators(variant, tmp_path):
    """What ONNX Runtime makes of the file: operator → count in the graph that it executes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(variant.payload, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
