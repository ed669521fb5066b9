"""ONNX → TensorFlow, operator by operator; importing this package imports TensorFlow."""

from __future__ import annotations

from labkit.convert.onnx_as_tensorflow.translate import as_tensorflow, supported, tensorflow_names

__all__ = ["as_tensorflow", "supported", "tensorflow_names"]
