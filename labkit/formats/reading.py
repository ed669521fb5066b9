"""Reading a model's file as bytes, and the JSON in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.files import read_regular
from labkit.variant import LARGEST_BYTES

_MOST_VALUES = 1_000_000


def read_file(path: Path, what: str, may_be_empty: bool = False) -> bytes:
    """The bytes of the file at `path`, which should be `what`; ModelFileError if it is missing, empty or no file."""
    if not os.path.exists(path):
        raise ModelFileError(f"{path} does not exist")
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, what)
    if not payload and not may_be_empty:
        raise ModelFileError(f"{path} is empty")
    return payload


def read_document(content: bytes, what: str) -> Any:
    """The JSON document in `content`, which is `what`.

    Raises ModelFileError if it is none, or holds so many values that they would fill our memory: each of three
    bytes becomes an object of a hundred.
    """
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ModelFileError(f"{what} holds more than {_MOST_VALUES:,} values: refused")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{what} is not valid JSON: {error}") from None


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a JSON document, however deep."""
    for each in objects(value):
        yield from each.items()


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
