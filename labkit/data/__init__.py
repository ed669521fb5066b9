"""Datasets: by name (digits, fashion-mnist, mnist) or your own (.npz, a folder of images per class)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from labkit.data.dataset import NO_LABEL, SPLITS, Dataset, Split
from labkit.data.named import DATASETS, cache_folder, card, check_known, load_named, location, registry
from labkit.doors import door
from labkit.errors import DataError

__all__ = [
    "DATASETS",
    "NO_LABEL",
    "SPLITS",
    "Dataset",
    "Split",
    "cache_folder",
    "card",
    "find_dataset",
    "load_dataset",
    "load_unlabelled",
    "location",
    "registry",
]


@door
def find_dataset(name_or_path: str | Path) -> Path | None:
    """The path of your own data, None for one of DATASETS. Reads nothing.

    Raises DataError if there is no dataset of that name, or nothing at that path that could be one.
    """
    if isinstance(name_or_path, str) and name_or_path in DATASETS:
        return None
    path = Path(name_or_path)
    there = os.path.exists(path)  # unlike Path's, it takes any text: nothing there has that name
    if there and (path.is_dir() or (path.suffix == ".npz" and path.is_file())):
        return path
    if there or path.suffix == ".npz" or "/" in str(name_or_path):
        reason = "is not an .npz file or a folder of images per class" if there else "does not exist"
        raise DataError(f"{path} {reason}")
    check_known(str(name_or_path))
    return None


@door
def load_dataset(name_or_path: str | Path) -> Dataset:
    """Load a dataset by its name in DATASETS, or your own from a path.

    Raises DataError if it is missing, damaged, has one class only, or labels out of range.
    """
    path = find_dataset(name_or_path)
    if path is None:
        return load_named(str(name_or_path))
    from labkit.data.images import load_folder
    from labkit.data.own import load_npz

    return load_folder(path) if path.is_dir() else load_npz(path)


@door
def load_unlabelled(name_or_path: str | Path) -> Split:
    """The training samples of a dataset without their labels: each target is NO_LABEL.

    An `.npz` needs no targets for it: an array `x`, or `x_train`, is enough. Raises as `load_dataset` does.
    """
    from labkit.data import own

    path = Path(name_or_path)
    if name_or_path not in DATASETS and path.suffix == ".npz" and os.path.isfile(path):
        samples = own.load_unlabelled(path)
        if samples is not None:
            return samples
    train = load_dataset(name_or_path).split("train")
    return Split(train.inputs, np.full(len(train), NO_LABEL))
