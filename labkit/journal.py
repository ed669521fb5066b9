"""A journal: a file of JSON objects, one a line, that is only ever appended to.

Several processes may append to one at the same time: each holds a lock for its few milliseconds, so that
lines never mix. A process that is killed while it writes can leave a last line without an end. Readers leave
such a torn line out with a warning, and the next writer cuts it off. A write that fails, on a full disk say,
is cut off at once.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from labkit.errors import StudyError
from labkit.files import read_regular

_LARGEST_BYTES = 2**30


def to_line(row: Mapping[str, Any]) -> str:
    """One line of JSON; NumPy's numbers and arrays become plain ones. StudyError for NaN and the like."""

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__} is not JSON")

    try:
        text = json.dumps(row, default=plain, allow_nan=False, ensure_ascii=False)
        text.encode()  # half of a surrogate pair cannot be
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise StudyError(f"this record cannot be kept: {error}; NaN and infinity must be null") from None


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append `lines`, all of them or none, and see them on the disk; the folder is made if need be.

    Raises StudyError if the disk is full or the folder cannot be written.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(".lock")), open(path, "a+b", buffering=0) as file:
            size_bytes = _end_of_last_line(path, file)
            file.truncate(size_bytes)
            try:
                _write_whole(file, data)
            except BaseException:
                file.truncate(size_bytes)
                raise
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror}; nothing was added") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; [] if there is no file, and a warning where its end is torn."""
    try:
        path.lstat()
    except FileNotFoundError:
        return []
    data = read_regular(path, StudyError, _LARGEST_BYTES, "a journal")
    whole, _, torn = data.rpartition(b"\n")
    if torn:
        _refuse_junk(path, torn)
        warnings.warn(f"{path}: the last line is cut off, and was left out", stacklevel=3)
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        try:
            row = json.loads(line.decode("utf-8-sig"))
            to_line(row)  # what could not be written is damage: NaN, a number like 1e999, nesting without end
        except (ValueError, RecursionError, StudyError):
            row = None
        if not isinstance(row, dict):
            raise StudyError(
                f"{path}, line {number} is damaged: delete that line, and run again what it held"
            )
        rows.append(row)
    return rows


def _refuse_junk(path: Path, torn: bytes) -> None:
    """Raise StudyError unless a line without an end can be what a killed writer left, or a power cut: zeros."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(torn)  # a letter may be cut in two
        known = torn.startswith(b"{") or not torn.strip(b"\0")
    except UnicodeDecodeError:
        known = False
    if not known:
        raise StudyError(f"{path}: what stands after its last whole line is not labkit's: delete that")


def _end_of_last_line(path: Path, file: BinaryIO) -> int:
    """Where the last whole line ends; beyond it lies, at most, what a killed writer left."""
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            data = file.read()
            end = data.rfind(b"\n") + 1
            _refuse_junk(path, data[end:])
            return end
    return size_bytes


def _write_whole(file: BinaryIO, data: bytes) -> None:
    """Write all of it, however little the system takes at a time, and see it on the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for, then hold, a lock between processes; the system releases it when its holder dies."""
    with open(path, "ab") as file:
        _lock(file.fileno())
        try:
            yield
        finally:
            _unlock(file.fileno())


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError:  # it gives up after ten seconds, we do not
                continue

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
