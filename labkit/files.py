"""Writing so that a reader sees the old file or the new one, never half; reading what others wrote."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError

_LARGEST_JSON_BYTES = 16 * 1024 * 1024


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write beside `path`, flush to the disk, rename over it; on any failure the original stays.

    Raises LabkitError if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise LabkitError(f"cannot write {path}: {error.strerror}; nothing was changed") from None
    finally:
        aside.unlink(missing_ok=True)


def read_json(path: str | Path, kind: type[LabkitError]) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MiB; every failure is a `kind` that names the path."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise kind(f"{path} is larger than {_LARGEST_JSON_BYTES} bytes: not a file that labkit wrote")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise kind(f"{path} holds a {type(document).__name__}, not an object")
    return document
