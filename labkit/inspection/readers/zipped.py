"""One file out of a ZIP archive, the rest untouched: what a model's graph is, without its weights."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.formats.archive import check_entries
from labkit.formats.reading import read_document

_LARGEST_JSON_BYTES = 64 * 1024 * 1024


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive; ModelFileError if it is none, or one that `load_model` would refuse for its names or sizes."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ModelFileError(f"it is not a ZIP archive, or a damaged one: {error}") from None
    check_entries(archive.infolist(), path.stat().st_size, "it")
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
    return read_document(content, f"{name} in it")
