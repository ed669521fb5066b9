"""ZIP archives from outside: read into memory under limits, with no name that leads anywhere and no bomb."""

from __future__ import annotations

import io
import stat
import zipfile

from labkit.errors import ModelFileError
from labkit.variant import LARGEST_BYTES, check_name

_MOST_ENTRIES = 10_000
_LARGEST_RATIO = 10  # PyTorch and Keras store their files uncompressed
_SMALL_BYTES = 50_000_000


def read_zip(payload: bytes, what: str) -> dict[str, bytes]:
    """The files of an archive, name → bytes.

    Raises ModelFileError for what is no ZIP, is damaged or encrypted, holds a name twice, a link, a path out of
    the folder, or unpacks to far more than it weighs (a bomb): the declared sizes are held against what comes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            check_entries(entries, len(payload), what)
            return {entry.filename: _content(archive, entry, what) for entry in entries}
    except (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise ModelFileError(f"{what} is not a ZIP archive, or a damaged one: {str(error)[:150]}") from None


def check_entries(entries: list[zipfile.ZipInfo], weight: int, what: str) -> None:
    """Raise ModelFileError for names and sizes that no model needs, in an archive of `weight` bytes."""
    if len(entries) > _MOST_ENTRIES:
        raise ModelFileError(f"{what} holds {len(entries)} files: refused")
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ModelFileError(f"{what} holds a file twice under one name: refused, because readers disagree")
    for entry in entries:
        try:
            check_name(entry.orig_filename)
        except ModelFileError as error:
            raise ModelFileError(f"{what} holds a file whose name {error}") from None
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ModelFileError(f"{what} holds a link, {entry.filename[:80]!r}: refused")
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_BYTES or total > max(_LARGEST_RATIO * weight, _SMALL_BYTES):
        raise ModelFileError(f"{what} would unpack from {weight} to {total} bytes: refused as a bomb")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> bytes:
    with archive.open(entry) as file:
        content = file.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise ModelFileError(f"{what}: {entry.filename[:80]!r} is not as long as it claims")
    return content
