"""The model's own files beside `variant.json`: named after their content, checked before they are believed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from labkit.errors import ConfigError, ModelFileError
from labkit.files import check_safetensors_header, read_regular, why, write_atomically
from labkit.variant.formats import get_format

LARGEST_BYTES = 2**31 - 1
"""Of a model's file: protobuf's own limit."""
_MOST_FILES = 1000


def framed(model: Any) -> bytes:
    """What a digest is taken of: a file's bytes; of a folder, each name, length and content in the names' order."""
    if not isinstance(model, Mapping):
        return bytes(model)
    return b"".join(f"{name}\n{len(model[name])}\n".encode() + model[name] for name in sorted(model))


def unframed(content: bytes) -> dict[str, bytes]:
    """The folder whose `framed` bytes these are."""
    files: dict[str, bytes] = {}
    start = 0
    while start < len(content):
        name_end = content.index(b"\n", start)
        end = content.index(b"\n", name_end + 1)
        size = int(content[name_end + 1 : end])
        files[content[start:name_end].decode()] = content[end + 1 : end + 1 + size]
        start = end + 1 + size
    return files


def write_folder(place: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` into a new folder beside `place`, then rename it; a `place` of other content is replaced.

    Raises ModelFileError for a name that would lead out of the folder.
    """
    for name in files:
        check_name(name)
    if place.is_dir() and read_folder(place) == dict(files):
        return place
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        for name, content in files.items():
            write_atomically(aside / name, content)
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, aside / ".former")
        os.replace(aside, place)
        shutil.rmtree(place / ".former", ignore_errors=True)
        return place
    except OSError as error:
        raise ModelFileError(f"cannot write {place}: {why(error)}; choose another folder") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_name(name: str) -> None:
    """Raise ModelFileError unless `name` is a relative path that stays inside its folder, on every system."""
    parts = PurePosixPath(name).parts
    bad = (
        not parts
        or name.startswith("/")
        or ".." in parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or "\n" in name
    )
    if bad:
        raise ModelFileError(f"{name[:80]!r} would lead out of its folder: refused")


def read_folder(place: Path) -> dict[str, bytes]:
    """The files of a folder, relative name → bytes; ModelFileError for a link, a device, or far too many."""
    found: dict[str, bytes] = {}
    total = 0
    for path in _walk(place):
        if len(found) >= _MOST_FILES:
            raise ModelFileError(f"{place} holds more than {_MOST_FILES} files: not a model")
        content = read_regular(path, ModelFileError, LARGEST_BYTES - total, "a part of a model")
        total += len(content)
        name = path.relative_to(place).as_posix()
        check_name(name)
        found[name] = content
    return found


def _walk(place: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError as error:
        raise ModelFileError(f"cannot read {place}: {why(error)}") from None
    for entry in entries:
        if entry.is_symlink():
            raise ModelFileError(f"{entry.path} is a link: refused, because it may lead out of the folder")
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def read_model(folder: Path, document: Mapping[str, Any]) -> Any:
    """The model that `variant.json` names, if it is the one that was saved; ModelFileError otherwise."""
    name, format_ = document["file"], document["format"]
    try:
        shape = get_format(format_)
    except ConfigError:
        shape = None
    if Path(name).name != name or shape is None or format_ == "mindspore":
        raise ModelFileError(f"{folder}/variant.json names {name!r} of format {format_!r}: refused")
    path = folder / name
    if shape.kind == "folder":
        _refuse_link(path)
        files = read_folder(path)
        _check_sum(path, framed(files), document["sha256"])
        return files
    payload = read_payload(path, document["sha256"])
    return torch_model(document["config"], payload) if format_ == "torch" else payload


def read_payload(path: Path, expected: str) -> bytes:
    """The bytes of a file whose SHA-256 is `expected`; ModelFileError for any other, and for a link."""
    _refuse_link(path)
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, "a model's file")
    _check_sum(path, payload, expected)
    return payload


def _refuse_link(path: Path) -> None:
    try:
        if path.is_symlink():
            raise ModelFileError(f"{path} is a link: refused, because it may lead out of the folder")
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from None


def _check_sum(path: Path, content: bytes, expected: str) -> None:
    if hashlib.sha256(content).hexdigest() != expected:
        raise ModelFileError(
            f"{path} is not the file that was saved (its checksum differs): restore or save again"
        )


def object_bytes(format_: str, model: Any) -> bytes:
    """A live model's parameters as safetensors."""
    if format_ == "torch":
        return torch_bytes(model)
    from safetensors.numpy import save

    return save({p.name: p.asnumpy() for p in model.get_parameters()})


def torch_bytes(model: Any) -> bytes:
    """A PyTorch model's parameters as safetensors."""
    import torch
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    tensors = model.state_dict().items()
    return save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors})


def torch_model(config: Any, payload: bytes) -> Any:
    """The architecture that `config` names with the parameters of `payload`; ModelFileError where they do not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from labkit.models import build

    if not isinstance(config, dict):
        raise ModelFileError("variant.json has no config for its architecture")
    check_safetensors_header(payload)
    try:
        tensors = load(payload)
        with torch.device("meta"):  # costs nothing, whatever widths the config claims
            expected = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
        if expected != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ModelFileError("the parameters do not fit the architecture: save the variant again")
        model = build(config)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"the parameters do not fit the architecture: {first}") from None
    return model.eval()
