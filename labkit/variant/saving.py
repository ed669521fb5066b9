"""A saved model takes the place of the former one: never both, never half of one, whoever else saves there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.files import made_folder, read_json, why, write_atomically
from labkit.variant.files import framed, write_folder
from labkit.variant.formats import get_format

_PATIENCE_S = 60.0


@contextmanager
def written_model(format_: str, model: Any, payload: bytes, folder: Path) -> Iterator[tuple[str, str]]:
    """Write the model's file, or folder of files, into `folder`; yields its name and SHA-256 for `variant.json`.

    Once that is written, the model that the former one named is removed, if `save` wrote it; if it could not be
    written, the new model is. Whoever else saves there waits. Raises ModelFileError for a model that cannot be saved
    and a folder that cannot be made.
    """
    name, checksum = _name(format_, model, payload)
    try:
        with made_folder(folder), _alone(folder):
            former, was_there = _named(folder), os.path.lexists(folder / name)
            try:
                if get_format(format_).kind == "folder":
                    write_folder(folder / name, model)
                else:
                    write_atomically(folder / name, payload)
                yield name, checksum
            except BaseException:
                if not was_there and former != name and _named(folder) == former:
                    _remove(folder / name)
                raise
            if former not in (None, name):
                _remove(folder / str(former))
    except OSError as error:
        raise ModelFileError(f"cannot write into {folder}: {why(error)}; choose another folder") from None


def _name(format_: str, model: Any, payload: bytes) -> tuple[str, str]:
    shape = get_format(format_)
    if shape.kind == "object" and not (format_ == "torch" and hasattr(model, "config")):
        raise ModelFileError(
            f"{type(model).__name__} is not one of labkit's architectures, so it cannot be rebuilt "
            "without pickle: convert it to ONNX first (labkit.ExportOnnx()) and save that"
        )
    if shape.kind == "folder":
        checksum, ending = hashlib.sha256(framed(model)).hexdigest(), ""
    else:
        checksum, ending = hashlib.sha256(payload).hexdigest(), shape.suffix
    return f"model-{checksum[:12]}{ending}", checksum


def _named(folder: Path) -> str | None:
    """The model that `variant.json` names, if it is one that `save` may have written."""
    try:
        name = read_json(folder / "variant.json", ModelFileError).get("file")
    except ModelFileError:
        return None
    return name if isinstance(name, str) and re.fullmatch(r"model-[0-9a-f]{12}(\.\w+)?", name) else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


if sys.platform == "win32":

    @contextmanager
    def _alone(folder: Path) -> Iterator[None]:
        """Windows cannot lock a folder: whoever saves there twice at once is on his own."""
        yield
else:
    import fcntl

    @contextmanager
    def _alone(folder: Path) -> Iterator[None]:
        """Keep others from saving into `folder` meanwhile; ModelFileError if one is still at it after a minute."""
        door = os.open(folder, os.O_RDONLY)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _try(door):
                if time.monotonic() > deadline:
                    raise ModelFileError(
                        f"another process keeps saving into {folder}: wait for it, or choose another folder"
                    )
                time.sleep(0.005)
            yield
            fcntl.flock(door, fcntl.LOCK_UN)
        finally:
            os.close(door)

    def _try(door: int) -> bool:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network disks have no locks: then nobody waits
            return True
        return True
