"""Writing so that a reader sees the old file or the new one, never half; reading what others wrote."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError, ModelFileError

_LARGEST_JSON_BYTES = 16 * 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Steers a terminal; or turns the direction of what follows, so that it reads otherwise than it is."""
_MOST_DOTS = 100


def check_writable(folder: str | Path, file: str = "") -> None:
    """Raise LabkitError now if `folder` cannot be made or written, or can hold no `file` of that name.

    Not at the end of long work, that is. Leaves no trace.
    """
    there = Path(folder).absolute()
    try:
        _is_there(there / file)
        while not _is_there(there):
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:
        raise LabkitError(f"cannot write into {folder}: {why(error)}; choose another folder") from None


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write beside `path`, flush to the disk, rename over it; on any failure the original stays.

    Raises LabkitError if the disk is full or the folder cannot be written.
    """
    write_together({Path(path): data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """`write_atomically` for files of one folder that need each other: all are on the disk before one is replaced."""
    path = next(iter(contents))
    folder = path.parent
    asides = {
        each: folder / f".{secrets.token_hex(4)}.partial" for each in contents
    }  # short, as a name may be long
    try:
        with made_folder(folder):
            try:
                for path, data in contents.items():
                    with open(asides[path], "wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                for path, aside in asides.items():
                    os.replace(aside, path)
            finally:
                for aside in asides.values():
                    with suppress(OSError):
                        aside.unlink(missing_ok=True)
    except OSError as error:
        raise LabkitError(f"cannot write {path}: {error.strerror}; nothing was changed") from None


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make `folder` for what is written meanwhile; if that fails, what was made is removed again. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # others have put something there
                each.rmdir()
        raise


def check_text(kind: type[LabkitError], *texts: str) -> None:
    """Raise a `kind` for a text that no file can hold, or that would steer a terminal instead of being shown.

    A name in another coding than UTF-8 becomes one that no file can hold.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise kind(f"{text[:80]!r} is not valid UTF-8, so no record could hold it: rename it") from None
        if _CONTROL.search(text):
            raise kind(f"{text[:80]!r} holds a control character, which no name may: rename it")


def read_regular(path: str | Path, kind: type[LabkitError], largest_bytes: int, what: str) -> bytes:
    """The bytes of a regular file that may be `what`; a device, a pipe or a larger file is a `kind`, in no time."""
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise kind(f"cannot read {path}: it is not a file on a disk, so not {what}")
        if found.st_size > largest_bytes:
            raise kind(f"{path} is larger than {largest_bytes} bytes: not {what}")
        with open(path, "rb") as file:
            return file.read(found.st_size)
    except (OSError, ValueError) as error:
        raise kind(f"cannot read {path}: {why(error)}") from None


def read_json(path: str | Path, kind: type[LabkitError]) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MiB; every failure is a `kind` that names the path."""
    data = read_regular(path, kind, _LARGEST_JSON_BYTES, "a file that labkit wrote")
    try:
        document = parse_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise kind(f"{path} holds a {type(document).__name__}, not an object")
    return document


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; ValueError if it is none, or a field stands there twice: readers disagree which counts."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name[:80]!r} stands there twice")
    return fields


def read_toml(path: str | Path, kind: type[LabkitError], largest_bytes: int, what: str) -> dict[str, Any]:
    """A TOML file that a person wrote, in Notepad too; every failure is a `kind` that names the path."""
    try:
        text = read_regular(path, kind, largest_bytes, what).decode("utf-8-sig")
        if max(line.count(".") for line in text.split("\n")) > _MOST_DOTS:  # a.a.a…: n dots take n² bytes
            raise kind(f"{path} has a line with more than {_MOST_DOTS} dots: not {what}")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid TOML: {error}") from None


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


def _is_there(path: Path) -> bool:
    """Whether the name is taken, by a broken link too; OSError or ValueError if it can be no name."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def why(error: OSError | ValueError) -> str:
    """What the system says about a path, without the path."""
    return getattr(error, "strerror", None) or str(error)
