"""Your own data: an `.npz` file here, a folder of images per class in images.py, both made a dataset here.

`.npz`: arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`, `y_val`). A model with several
inputs takes one array per input, named as the input is, with the target in `y` (or `label`, `target`).
Whole-number targets mean classification, others regression. `labels` may name the classes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from labkit.data.dataset import NO_LABEL, Array, Dataset, Split, make_splits
from labkit.environment import memory_limit
from labkit.errors import DataError
from labkit.task import get_task

_TARGETS = ("y", "label", "target")
PARTS = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
_LARGEST_RATIO = 500


def load_npz(path: Path) -> Dataset:
    """Read an `.npz`; DataError names the array that is missing, damaged or does not fit the others."""
    parts, labels = _read(path)
    if labels and not any(name in found for found in parts.values() for name in _TARGETS):
        raise DataError(
            f"{path} has no targets: 'labels' are the names of the classes; if it holds the targets, name it 'y'"
        )
    return assemble(path, {part: _split(path, part, found) for part, found in parts.items()}, labels)


def load_unlabelled(path: Path) -> Split | None:
    """The samples of an `.npz` without targets, each target NO_LABEL; None if it has targets.

    Raises DataError if it has no samples to train on, and says what it has instead.
    """
    parts, _ = _read(path)
    arrays = parts.get("train", parts.get("all", {}))
    if arrays.keys() <= {*_TARGETS}:
        with np.load(path) as archive:
            found = ", ".join(archive.files) or "nothing"
        raise DataError(f"{path} has no x: name the array of samples 'x' or 'x_train'; found {found}")
    if any(name in arrays for name in _TARGETS):
        return None
    count = len(np.atleast_1d(next(iter(arrays.values()))))
    return _split(path, "unlabelled", {**arrays, _TARGETS[0]: np.full(count, NO_LABEL)})


def _read(path: Path) -> tuple[dict[str, dict[str, Array]], tuple[str, ...]]:
    """The arrays of each part, by name, and the classes' names."""
    _refuse_bomb(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except MemoryError:
        raise DataError(f"{path} claims more than this machine's memory holds") from None
    except Exception as error:  # numpy, zipfile, zlib and tokenize all have kinds of their own
        hint = "; arrays of Python objects are refused" if "pickle" in str(error) else ""
        raise DataError(f"{path} is not an .npz that labkit can read ({error}){hint}") from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is no .npy
            raise DataError(
                f"{path} is not an .npz that labkit can read: {key!r} in it is no array, take it out"
            )
    labels = tuple(map(str, np.atleast_1d(arrays.pop("labels")))) if "labels" in arrays else ()
    parts: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        stem, _, suffix = key.rpartition("_")
        part, name = (PARTS[suffix], stem) if stem and suffix in PARTS else ("all", key)
        parts.setdefault(part, {})[name] = array
    return parts, labels


def refuse_more_than_memory(path: Path, unpacked: int) -> None:
    """Raise DataError if data of so many bytes would leave too little for working with them."""
    allowed = memory_limit().bytes // 4
    if unpacked > allowed:
        raise DataError(
            f"{path} unpacks to {unpacked / 1e6:,.0f} MB, more than a quarter of this machine's memory "
            f"({allowed / 1e6:,.0f} MB): bring fewer samples"
        )


def _refuse_bomb(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is not an .npz file: {error}") from None
    unpacked = sum(entry.file_size for entry in entries)
    packed = max(1, sum(entry.compress_size for entry in entries))
    refuse_more_than_memory(path, unpacked)
    if unpacked > 16e6 and unpacked / packed > _LARGEST_RATIO:
        raise DataError(f"{path} unpacks to {unpacked / packed:,.0f} times its size: refused as a zip bomb")


def _split(path: Path, part: str, arrays: Mapping[str, Array]) -> Split:
    where = f"{path} ({part})" if part != "all" else str(path)
    target_name = next((name for name in _TARGETS if name in arrays), None)
    if target_name is None:
        raise DataError(
            f"{where} has no targets: name that array 'y'; found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    target = arrays[target_name]
    inputs = {name: array for name, array in arrays.items() if name != target_name}
    if not inputs:
        raise DataError(f"{where} has targets but no inputs: name the input array 'x'")
    for name, array in {target_name: target, **inputs}.items():
        if array.ndim == 0:
            raise DataError(
                f"{where}: {name!r} is a single value: an array with one entry a sample is needed"
            )
        if len(array) != len(target):
            raise DataError(f"{where}: {name!r} has shape {array.shape}, but there are {len(target)} targets")
        if array.dtype.kind not in "fiub":
            raise DataError(f"{where}: {name!r} has dtype {array.dtype}; only numbers can be used")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{where}: {name!r} holds NaN or infinite values: clean the data first")
    if len(target) == 0:
        raise DataError(f"{where} holds no samples")
    return Split({name: _as_images(array) for name, array in inputs.items()}, _as_target(target))


def _kinds(split: Split) -> dict[str, str]:
    """Each input's dtype and shape of a sample."""
    return {name: f"{array.dtype} {array.shape[1:]}" for name, array in sorted(split.inputs.items())}


def _as_images(array: Array) -> Array:
    """Grey images [N, H, W] of bytes gain a channel axis; everything else stays as it is."""
    return array[..., None] if array.dtype == np.uint8 and array.ndim == 3 else array


def _as_target(target: Array) -> Array:
    whole = target.dtype.kind in "iub"
    flat = target.reshape(-1) if target.ndim == 2 and target.shape[1] == 1 else target
    return np.ascontiguousarray(flat.astype(np.int64 if whole else np.float32))


def _is_one_hot(target: Array) -> bool:
    if target.ndim != 2 or target.shape[1] < 2:
        return False
    return bool(np.isin(target, (0, 1)).all() and (target.sum(1) == 1).all())


def assemble(path: Path, parts: dict[str, Split], labels: tuple[str, ...]) -> Dataset:
    """One dataset of the parts, their splits made where they lack; DataError where they do not go together."""
    rest = parts.get("train", parts.get("all"))
    if rest is None:
        raise DataError(f"{path} has no training samples: name the arrays x and y, or x_train and y_train")
    task = "classification" if rest.target.dtype == np.int64 else "regression"
    if task == "classification" and not labels:
        labels = tuple(str(index) for index in range(max(1, min(int(rest.target.max()) + 1, 100_000))))
    for part, split in parts.items():
        if _kinds(split) != _kinds(rest):
            raise DataError(
                f"{path}: samples of one size and kind are needed, train holds {_kinds(rest)}, {part} {_kinds(split)}"
            )
        get_task(task).check_target(split.target, labels)
        if task == "regression" and _is_one_hot(split.target):
            raise DataError(
                f"{path}: every target is a row of one 1 and zeros, which would be numbers to predict: store the "
                "classes as whole numbers, y.argmax(1)"
            )
    splits = make_splits(rest, parts.get("test"), parts.get("validation"), task)
    digest = hashlib.sha256()
    for name in sorted(splits):
        for array in (*splits[name].inputs.values(), splits[name].target):
            digest.update(np.ascontiguousarray(array).data)
    return Dataset(path.stem, task, splits, labels, f"Your own data: {path.name}", digest.hexdigest())
