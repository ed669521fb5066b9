"""One file out of a ZIP archive, the rest untouched: what a model's graph is, without its weights."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError

_LARGEST_JSON_BYTES = 64 * 1024 * 1024


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive; ModelFileError if it is none, or names a file twice."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ModelFileError(f"it is not a ZIP archive, or a damaged one: {error}") from None
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ModelFileError("it holds a file twice under one name: refused, because readers disagree")
    return archive


def read_json_entry(archive: zipfile.ZipFile, name: str) -> Any:
    """A JSON document in the archive, of at most 64 MiB whatever it claims."""
    try:
        with archive.open(name) as file:
            content = file.read(_LARGEST_JSON_BYTES + 1)
    except KeyError:
        raise ModelFileError(f"{name} is missing in it") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ModelFileError(f"{name} in it is damaged: {error}") from None
    if len(content) > _LARGEST_JSON_BYTES:
        raise ModelFileError(f"{name} in it is larger than 64 MiB")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name} in it is not valid JSON: {error}") from None
