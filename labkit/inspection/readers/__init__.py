"""One reader a format: `read(request) -> Inspection`, run in the child process. A new format is a file and a line."""

from __future__ import annotations

READERS = {
    "onnx": "onnx",
    "pt2": "exported_program",
    "tflite": "tflite",
    "openvino": "openvino",
    "keras": "keras",
    "tensorflow": "saved_model",
    "safetensors": "safetensors",
    "variant": "variant",
}
"""The format → the module here that reads it."""
