"""Model files: opening one that somebody else wrote, at a safe distance, whatever its format."""

from __future__ import annotations

from labkit.formats.onnx_file import inspect, load_onnx, write_metadata

__all__ = ["inspect", "load_onnx", "write_metadata"]
