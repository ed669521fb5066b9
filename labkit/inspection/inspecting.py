"""`inspect_file`: a file from anywhere is looked into by a child process, under limits of memory and time.

Not even its bytes come into this process: the child gets the path, reads what it needs (of an ONNX file all
but the weights), and answers in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError, nearest
from labkit.files import why
from labkit.formats.sandbox import ask
from labkit.inspection.record import Inspection

_SUFFIXES = {
    ".onnx": "onnx",
    ".pt2": "pt2",
    ".tflite": "tflite",
    ".xml": "openvino",
    ".keras": "keras",
    ".safetensors": "safetensors",
}
_FOLDERS = ("a SavedModel folder", "a saved variant's folder")
_EXTRA_MEMORY_BYTES = 400_000_000
_BASE_SECONDS, _BYTES_PER_SECOND = 10.0, 100e6


@door
def inspect_file(
    path: str | Path, sizes: Mapping[str, int] | None = None, verify_data: bool = False
) -> Inspection:
    """What `path` holds: operators, shapes, parameters, multiply-adds per layer, precision, dynamic dimensions.

    `sizes` binds dynamic dimensions by name, {"time": 128}, where the multiply-adds depend on them. `verify_data`
    compares recorded checksums of external files of any size; without it, those of at most 16 MB.
    Raises ConfigError for a file that is of no kind understood here, ModelFileError for one that is damaged, lies
    about itself, or would run code when opened.
    """
    path, sizes = Path(path), dict(sizes or {})
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < 2**31:
            raise ConfigError(f"sizes[{name!r}]={size!r} must be a whole number from 1 to 2147483647")
    kind = _kind(path)
    request = {"path": str(path), "kind": kind, "sizes": sizes, "verify_data": verify_data}
    size_bytes = _bytes_of(path)
    answer = ask(
        "labkit.inspection.child",
        path,
        json.dumps(request).encode(),
        _EXTRA_MEMORY_BYTES + size_bytes,  # a mapped file counts as memory, though it takes none
        _BASE_SECONDS + size_bytes / _BYTES_PER_SECOND,
    )
    return Inspection.from_json(answer)


def _kind(path: Path) -> str:
    """The format, one of the readers'; an error for any other says why, or what is understood."""
    try:
        if not path.exists():
            raise ModelFileError(f"{path} does not exist")
        if not path.is_dir() and not path.is_file():
            raise ModelFileError(f"{path} is not a file on a disk")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {str(path)!r}: {why(error)}") from None
    suffix = path.suffix.lower()
    if path.is_file() and suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if (path / "variant.json").is_file():
        return "variant"
    if path.name == "saved_model.pb":
        return "tensorflow"
    if suffix == ".bin":
        raise ModelFileError(
            f"{path} is the weights of an OpenVINO model, whose .xml beside it can be inspected, or a pickle of "
            "PyTorch, which can run code when it is read: save that one as .safetensors"
        )
    from labkit.formats import format_of

    try:
        return format_of(path)
    except ConfigError:
        known = nearest(suffix, [*_SUFFIXES, *_FOLDERS])
        raise ConfigError(f"{path} is of no kind that can be inspected; {known}") from None


def _bytes_of(path: Path) -> int:
    """Bytes of the file, or of the files that lie in the folder and one below."""
    files = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/*")]
    return sum(each.stat().st_size for each in files if each.is_file())
