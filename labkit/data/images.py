"""A folder of images per class: CLASS/*.png (jpg, bmp, gif, webp), or train/CLASS/… and test/CLASS/…."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labkit.data.dataset import Array, Dataset, Split
from labkit.data.own import PARTS, assemble, refuse_more_than_memory
from labkit.errors import DataError

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}


def load_folder(path: Path) -> Dataset:
    """Read images per class; every image must have the same size and mode (else DataError names two that differ)."""
    tops = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    if not tops:
        raise DataError(f"{path} has no sub-folders: put the images of each class into a folder of its own")
    named = {entry.name: entry for entry in tops}
    parts = {PARTS[name]: entry for name, entry in named.items() if name in PARTS}
    if "train" not in parts:
        parts = {"all": path}
    classes = _classes(parts.get("train", path))
    for part, folder in parts.items():
        if part != "all" and (strangers := sorted(set(_classes(folder)) - set(classes))):
            raise DataError(f"{folder} has a class {strangers[0]!r} that {parts['train']} has no images of")
    splits = {
        part: _read_classes(path, folder, classes, part in ("all", "train")) for part, folder in parts.items()
    }
    return assemble(path, splits, classes)


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name[0] != ".")


def _images(root: Path, folder: Path) -> Iterator[Path]:
    """The image files of one class, in order; DataError for what is no file, or leads out of `root`."""
    for file in sorted(folder.glob("*")):
        if file.suffix.lower() not in _IMAGES or file.name.startswith("."):
            continue
        if root.resolve() not in file.resolve().parents:
            raise DataError(f"{file} is a link that leads out of {root}: copy the image itself")
        if not file.is_file():
            raise DataError(f"{file} is named like an image, but is no regular file: take it away")
        yield file


def _read_classes(root: Path, folder: Path, classes: tuple[str, ...], complete: bool) -> Split:
    files = [(file, index) for index, name in enumerate(classes) for file in _images(root, folder / name)]
    if not files:
        raise DataError(f"{folder} holds no images in its class folders ({', '.join(sorted(_IMAGES))})")
    target = [index for _, index in files]
    if complete and (empty := sorted(set(range(len(classes))) - set(target))):
        raise DataError(
            f"{folder / classes[empty[0]]} holds no image of {', '.join(sorted(_IMAGES))}: add or remove it"
        )
    first = _read_image(files[0][0])
    refuse_more_than_memory(folder, len(files) * first.nbytes)
    images = np.empty((len(files), *first.shape), np.uint8)
    for place, (file, _) in enumerate(files):
        image = _read_image(file)
        if image.shape != first.shape:
            raise DataError(
                f"images must all have one size: {files[0][0].name} is {first.shape}, {file.name} is {image.shape} "
                "(height, width, channels); resize them first"
            )
        images[place] = image
    return Split({"image": images}, np.array(target, np.int64))


def _read_image(path: Path) -> Array:
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith("I"):  # 16 bits a pixel: `convert` would cut off all above 255
                    return np.atleast_3d((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
                grey = image.mode in ("1", "L", "LA")
                return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise DataError(f"{path} is not an image that can be read: {error}") from None
