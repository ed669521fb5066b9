"""Reading a model's file as bytes."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.errors import ModelFileError
from labkit.files import read_regular
from labkit.variant import LARGEST_BYTES


def read_file(path: Path, what: str) -> bytes:
    """The bytes of the file at `path`, which should be `what`; ModelFileError if it is missing, empty or no file."""
    if not os.path.exists(path):
        raise ModelFileError(f"{path} does not exist")
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, what)
    if not payload:
        raise ModelFileError(f"{path} is empty")
    return payload
