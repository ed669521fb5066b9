"""TensorFlow Lite's file: one flatbuffer that holds the operators and the weights."""

from __future__ import annotations

from pathlib import Path

from labkit.errors import ModelFileError
from labkit.formats.reading import read_file

CHILD = "labkit.formats.tflite_child"


def read(path: Path) -> bytes:
    """The file's bytes."""
    return read_file(path, "a TensorFlow Lite model")


def check(model: bytes, what: str) -> None:
    """Raise ModelFileError unless the bytes are marked as a TensorFlow Lite model (bytes 4 to 8 say TFL3)."""
    if model[4:8] != b"TFL3":
        raise ModelFileError(f"{what} is not a TensorFlow Lite model: its mark TFL3 is missing")


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(300e6 + 6 * size), 1.0 + size / 20e6
