"""Writing so that a reader sees the old file or the new one, never half; reading what others wrote."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError, ModelFileError

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
        with suppress(OSError):  # where the folder is a file, there is nothing to remove either
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


def check_safetensors_header(payload: bytes) -> None:
    """Raise ModelFileError for a header that readers could disagree about: a tensor that is named twice.

    A safetensors file is 8 bytes of header length (little-endian), that much JSON, then the tensors.
    """

    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        seen = Counter(names)
        for name in names:
            if seen[name] > 1:
                raise ModelFileError(
                    f"the safetensors file names {name!r} twice: refused, because readers disagree"
                )
        return dict(pairs)

    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or length > len(payload) - 8:
        raise ModelFileError("the safetensors file is truncated: its header is longer than the file")
    try:
        json.loads(payload[8 : 8 + length], object_pairs_hook=refuse_repeats)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the safetensors file's header is not JSON: {error}") from None
