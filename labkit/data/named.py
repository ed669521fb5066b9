"""The datasets that labkit knows by name, and where it looks for their files.

In this order: what a dependency bundles (digits), the folder in LABKIT_DATA_DIR, the system's package folder,
labkit's download cache, and at last a download. Every load verifies the decompressed bytes against the
registry, so a damaged or exchanged file is refused, not trained on.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import tempfile
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data.dataset import Array, Dataset, Split, make_splits
from labkit.errors import DataError, nearest

DATASETS = ("digits", "fashion-mnist", "mnist")
_LARGEST_FILE_BYTES = 64 * 1024 * 1024
_IDX_MAGIC = {1: b"\x00\x00\x08\x01", 3: b"\x00\x00\x08\x03"}


@functools.cache
def registry() -> dict[str, dict[str, Any]]:
    """`datasets/registry.toml`: from the wheel, or from the checkout around the package."""
    return tomllib.loads((_registry_folder() / "registry.toml").read_text(encoding="utf-8"))


def card(name: str) -> str:
    """The dataset's card: what it holds, where it comes from, under which licence."""
    return (_registry_folder() / f"{name}.md").read_text(encoding="utf-8")


def _registry_folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    installed = package / "datasets"
    return installed if installed.is_dir() else package.parent / "datasets"


def check_known(name: str) -> None:
    """Raise DataError, with a suggestion, unless it is one of DATASETS."""
    if name not in DATASETS:
        raise DataError(
            f"unknown dataset {name!r}; {nearest(name, DATASETS)}; or give a path to an .npz or a folder"
        )


def load_named(name: str) -> Dataset:
    """Load one of DATASETS; a DataError names every way to get the data if it cannot be found."""
    check_known(name)
    entry = registry()[name]
    if name == "digits":
        rest, test, checksum = *_digits(entry), entry["sha256"]["pixels"]
    else:
        files = {key: _verified(name, key) for key in entry["sha256"]}
        rest = Split(
            {"image": _idx(files["train-images-idx3-ubyte"])}, _idx(files["train-labels-idx1-ubyte"])
        )
        test = Split({"image": _idx(files["t10k-images-idx3-ubyte"])}, _idx(files["t10k-labels-idx1-ubyte"]))
        checksum = entry["sha256"]["train-images-idx3-ubyte"]
    splits = make_splits(rest, test, None, entry["task"])
    return Dataset(name, entry["task"], splits, tuple(entry["labels"]), card(name), checksum)


def location(name: str) -> str | None:
    """Where the dataset would be loaded from without a download, or None."""
    if name == "digits":
        return f"bundled with {registry()[name]['bundled_with']}"
    for folder in _folders(name):
        if all(_find(folder, key) for key in registry()[name]["sha256"]):
            return str(folder)
    return None


def _digits(entry: dict[str, Any]) -> tuple[Split, Split | None]:
    """1,797 images of 8×8 with 17 grey levels, enlarged to uint8 [N, 32, 32, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels, target = bunch.images.astype(np.int64), bunch.target.astype(np.int64)
    found = hashlib.sha256(pixels.astype(np.uint8).tobytes() + target.astype(np.uint8).tobytes()).hexdigest()
    if found != entry["sha256"]["pixels"]:
        raise DataError(
            f"scikit-learn's digits have changed (sha256 {found}): install the pinned scikit-learn"
        )
    return Split({"image": enlarge(pixels)}, target), None


def enlarge(pixels: Array) -> Array:
    """Bilinear enlargement by 4 in whole-number arithmetic, so that every machine gets the same bytes.

    pixels: int64 [N, 8, 8] in 0..16 → uint8 [N, 32, 32, 1] in 0..255.
    """
    side, factor = pixels.shape[1], 4
    weights = np.zeros((side * factor, side), np.int64)  # in eighths
    for row in range(side * factor):
        position = 2 * row + 1 - factor  # in eighths of a source pixel
        left, part = divmod(position, 2 * factor)
        weights[row, min(max(left, 0), side - 1)] += 2 * factor - part
        weights[row, min(max(left + 1, 0), side - 1)] += part
    sums = np.einsum("ri,nij,cj->nrc", weights, pixels, weights)  # 64 × the interpolated value
    return np.asarray((sums * 255 + 512) // 1024, dtype=np.uint8)[..., None]


def _folders(name: str) -> list[Path]:
    entry = registry()[name]
    found = [Path(os.environ["LABKIT_DATA_DIR"]) / name] if os.environ.get("LABKIT_DATA_DIR") else []
    if "system_folder" in entry:
        found.append(Path(entry["system_folder"]))
    return [*found, cache_folder() / name]


def cache_folder() -> Path:
    """Where downloads are kept: LABKIT_CACHE_DIR, or the user's cache folder."""
    if os.environ.get("LABKIT_CACHE_DIR"):
        return Path(os.environ["LABKIT_CACHE_DIR"])
    import pooch

    return Path(pooch.os_cache("labkit"))


def _find(folder: Path, key: str) -> Path | None:
    for candidate in (folder / f"{key}.gz", folder / key):
        if candidate.is_file():
            return candidate
    return None


def _verified(name: str, key: str) -> bytes:
    for folder in _folders(name):
        path = _find(folder, key)
        if path is not None:
            return _checked_bytes(path, registry()[name]["sha256"][key])
    return _download(name, key)


def _checked_bytes(path: Path, expected: str) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(_LARGEST_FILE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and run labkit data fetch") from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DataError(
            f"{path} is not the file that labkit knows: sha256 {found[:16]}…, expected {expected[:16]}…; "
            "delete it and run labkit data fetch"
        )
    return data


def _download(name: str, key: str, attempts: int = 2) -> bytes:
    """Fetch one file beside the cache, verify it, and only then move it in."""
    import pooch

    entry = registry()[name]
    target = cache_folder() / name / f"{key}.gz"
    problem = ""
    for _ in range(attempts):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as aside:
                url = f"{entry['download']}{key}.gz"
                pooch.HTTPDownloader(timeout=20)(url, str(Path(aside) / "file.gz"), None)
                data = _checked_bytes(Path(aside) / "file.gz", entry["sha256"][key])
                os.replace(Path(aside) / "file.gz", target)
                return data
        except (OSError, ValueError, DataError) as error:
            problem = str(error)
    raise DataError(f"{name} was not found and could not be downloaded ({problem[:160]}). {_ways(name)}")


def _ways(name: str) -> str:
    entry = registry()[name]
    ways = [f"put {', '.join(f'{key}.gz' for key in entry['sha256'])} into $LABKIT_DATA_DIR/{name}"]
    if "system_package" in entry:
        ways.append(f"on Debian or Ubuntu: apt-get install {entry['system_package']}")
    ways.append(f"with a network: labkit data fetch {name}")
    return "Ways to get it: " + "; ".join(ways) + "; or use --dataset digits, which needs none of this"


def _idx(data: bytes) -> Array:
    """An IDX file: magic 0 0 8 rank, big-endian sizes, bytes. Images gain a channel axis, labels become int64."""
    rank = data[3]
    if data[:4] != _IDX_MAGIC.get(rank):
        raise DataError(f"not an IDX file of bytes: it starts with {data[:4]!r}")
    shape = np.frombuffer(data, ">i4", rank, 4)
    array = np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return array[..., None] if rank == 3 else array.astype(np.int64)
