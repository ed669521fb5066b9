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
    content = read_entry(archive, name, _LARGEST_JSON_BYTES + 1)
    if len(content) > _LARGEST_JSON_BYTES:
        raise ModelFileError(f"{name} in it is larger than 64 MiB")
    return read_document(content, f"{name} in it")


def read_entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The first bytes of a file in the archive, at most so many."""
    try:
        with archive.open(name) as file:
            return file.read(most)
    except KeyError:
        raise ModelFileError(f"{name} is missing in it") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ModelFileError(f"{name} in it is damaged: {error}") from None
