"""What hostile files are made with: archives with whatever names, and code that leaves the file `EXECUTED` behind."""

from __future__ import annotations

import io
import resource
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DATA = Path(__file__).parents[1] / "data"
EXECUTED = "executed"
CODE = f"__import__('builtins').open({EXECUTED!r}, 'w')"
RANDOM = np.random.default_rng(0).bytes(4000)


def processor_seconds() -> float:
    """Of this process and its finished children: the clock on the wall counts other programs too."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Case(NamedTuple):
    """`files` to write (a Path stands for a link), which of them is `given` to labkit, and what the error `says`."""

    given: str
    files: Callable[[], Mapping[str, bytes | Path]]
    says: str
    is_shown: bool = False  # inspect_file runs nothing, and may show what only running would tell

    def write(self, folder: Path) -> Path:
        """Write the files into the folder; returns the path to open."""
        for name, content in self.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
        return folder / self.given


class Malicious:
    """Unpickled, it runs `CODE`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (CODE,)


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of the files; names may be of any kind."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name) if compression == 0 else name, content)
    return buffer.getvalue()


def with_entry(archive: bytes, entry: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    """The archive with one more entry, which may be a link or a name that is taken."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as opened, warnings.catch_warnings(action="ignore"):
        opened.writestr(entry, content)
    return buffer.getvalue()


def link_entry(name: str) -> zipfile.ZipInfo:
    """An entry that is a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


def overlapping(archive: bytes) -> bytes:
    """The directory at the end names the first file's bytes again and again: few bytes on the disk, many unpacked."""
    end = archive.rindex(b"PK\5\6")
    count, size, start = struct.unpack("<HII", archive[end + 10 : end + 20])
    entry = archive[start : start + size // count]
    copies = b"".join(entry.replace(entry[46:52], b"%06d" % index) for index in range(300))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 300, 300, len(copies), start, 0)
    return archive[:start] + copies + tail
