"""The transfer set: the images over which the teacher is asked, and from which the student learns.

It need not be what the teacher was trained on. With alpha=1 no label is read, so any images of the same shape will
do. And whole classes may be missing: what a teacher says about an 8 tells something about 3s, and a student that has
never seen a 3 recognises most of them (Hinton, Vinyals and Dean 2015, section 3).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from labkit.data import Dataset, Split, load_unlabelled
from labkit.errors import ConfigError, DataError, nearest


def without_classes(dataset: Dataset, names: str) -> Dataset:
    """`dataset` with no sample of these classes to train on; validation and test keep theirs.

    names: class names with commas between them, such as "7,8". Raises ConfigError for a class that there is not, or
    if no sample would be left.
    """
    gone = [name.strip() for name in names.split(",")]
    for name in gone:
        if name not in dataset.labels:
            known = nearest(name, dataset.labels)
            raise ConfigError(f"without={names!r}: {dataset.name} has no class {name!r}; {known}")
    train = dataset.split("train")
    left = ~np.isin(train.target, [dataset.labels.index(name) for name in gone])
    if not left.any():
        raise ConfigError(
            f"without={names!r} leaves out every class of {dataset.name} that has a sample to train on: leave one in"
        )
    return _trains_on(dataset, train.take(left))


def with_images_of(dataset: Dataset, other: str) -> Dataset:
    """`dataset` with the images of `other`, a dataset's name or path, to train on: without their labels.

    Raises DataError if there are none, or they are not of the same shape and kind.
    """
    own, found = dataset.split("train"), load_unlabelled(other)
    if len(own.inputs) == 1 < len(found.inputs) and "x" not in found.inputs:
        raise DataError(
            f"transfer={other!r} has no x: name the array of images 'x', and leave out the others; "
            f"found {', '.join(found.inputs)}"
        )
    if len(own.inputs) == len(found.inputs) == 1:  # of a single input the name is of no importance
        found = Split(dict(zip(own.inputs, found.inputs.values(), strict=True)), found.target)
    ours, theirs = _kinds(own), _kinds(found)
    if theirs != ours:
        raise DataError(
            f"transfer={other!r} holds {theirs} a sample, {dataset.name} {ours}: bring the same kind"
        )
    return _trains_on(dataset, found)


def _trains_on(dataset: Dataset, train: Split) -> Dataset:
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": train})


def _kinds(split: Split) -> dict[str, str]:
    return {name: f"{array.dtype} {list(array.shape[1:])}" for name, array in sorted(split.inputs.items())}
