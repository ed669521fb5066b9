"""The networks that labkit ships: weights in safetensors, each with a card that a test measures again.

load_model("resnet20@digits")    or a saved variant's folder, or your own model.onnx
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

from labkit.data import load_dataset
from labkit.doors import door
from labkit.environment import current
from labkit.errors import ConfigError, ModelFileError, nearest
from labkit.files import read_json, write_atomically
from labkit.progress import Progress
from labkit.variant import Variant

FOLDER, CODED = Path(__file__).parent, "model.lkz"


def recipes() -> dict[str, dict[str, Any]]:
    """Name → {model, dataset, train}: everything that is needed to train each network again."""
    return tomllib.loads((FOLDER / "recipes.toml").read_text(encoding="utf-8"))


def names() -> tuple[str, ...]:
    """The networks whose weights are here."""
    return tuple(
        name for name in recipes() if any((FOLDER / name / file).exists() for file in ("variant.json", CODED))
    )


@door
def load_model(name_or_path: str | Path, patience: float = 1.0) -> Variant:
    """A shipped network by name, a saved variant's folder, or somebody's own model file (`labkit.formats.load_file`).

    `patience` multiplies the memory and the time that opening a file may take, for one that you trust.
    Raises ConfigError with a suggestion for an unknown name, ModelFileError for a file that must not be trusted.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in names():
        return _shipped(name)
    from labkit.formats import READERS, format_of, inspect, load_file

    if os.path.isfile(path / "variant.json"):  # unlike Path's, it takes any text: no folder has that name
        variant = Variant.load(path)
        if variant.format in READERS:  # somebody's own folder is as foreign as somebody's own file
            inspect(path, variant.format, variant.model, patience)
        return variant
    if path.suffix.lower() == ".lkz":
        from labkit.encode import load_encoded

        return load_encoded(path)
    try:
        format_of(path)
    except ConfigError:
        if os.path.isdir(path):
            raise ModelFileError(f"{path} holds no variant.json, and no model that labkit knows") from None
        if path.suffix or os.path.exists(path):
            raise
        raise ConfigError(
            f"unknown model {name!r}; {nearest(name, names())}; or give a saved variant or a model's file"
        ) from None
    return load_file(path, patience=patience)


def _shipped(name: str) -> Variant:
    """One of `names()`: a folder with a saved variant, or with a coded file."""
    if (FOLDER / name / "variant.json").exists():
        return Variant.load(FOLDER / name)
    from labkit.encode import load_encoded

    decoded = load_encoded(FOLDER / name / CODED)
    steps = tuple(dataclasses.replace(step, origin="zoo") for step in decoded.lineage)
    return dataclasses.replace(decoded, name=name, lineage=steps)


def derived(model: Variant) -> tuple[Variant, ...]:
    """The shipped variants that were made from exactly this model beforehand (pruned, distilled)."""
    found = []
    for name in names():
        variant = Variant.load(FOLDER / name) if recipes()[name].get("from") else None
        if variant is not None and model.digest in variant.lineage[-1].parents:
            found.append(variant)
    return tuple(found)


def trained_on(name_or_path: str | Path) -> str | None:
    """The dataset of a shipped network, or of a saved variant that was made of one; None where that cannot be told.

    A name such as lenet5@mnist alone tells nothing: somebody's own folder of images may be called mnist too.
    """
    if str(name_or_path) in names():
        return str(recipes()[str(name_or_path)]["dataset"])
    file = Path(name_or_path) / "variant.json"
    if not os.path.isfile(file):  # unlike Path's, it takes any text
        return None
    first, dataset = _origin(file)
    for name, recipe in recipes().items():
        if first and recipe["dataset"] == dataset and _first_step(name) == first:
            return dataset
    return None


def _first_step(name: str) -> Any:
    """Of the lineage of a shipped network, as a saved variant tells it."""
    file = FOLDER / name / "variant.json"
    return (
        _origin(file)[0]
        if file.is_file()
        else json.loads(json.dumps(dataclasses.asdict(_shipped(name).lineage[0])))
    )


def _origin(file: Path) -> tuple[Any, str]:
    """The first step of a saved variant's lineage, or None, and the dataset in its name."""
    document = read_json(file, ModelFileError)
    lineage = document.get("lineage")
    dataset = str(document.get("name")).partition("@")[2].partition("+")[0]
    return (lineage[0] if isinstance(lineage, list) and lineage else None), dataset


def card(name: str) -> dict[str, Any]:
    """What was measured when the network was trained: quality with its interval, data checksum, recipe."""
    return read_json(FOLDER / name / "card.json", ModelFileError)


def train_from_recipe(name: str, progress: Progress | None = None, checkpoint: Path | None = None) -> Variant:
    """Train the network `name` again, by its recipe: from scratch, or by a technique from another shipped one.

    Raises ConfigError for one that a benchmark makes, and says how to run that.
    """
    from labkit.train import Train, fit, fresh_variant

    recipe = recipes()[name]
    if "benchmark" in recipe:
        raise ConfigError(f"{name!r} is made by a benchmark: python -m {recipe['benchmark']}")
    dataset = load_dataset(recipe["dataset"])
    if "from" in recipe:
        from labkit.pipeline import make_technique

        technique = make_technique(recipe["technique"], recipe["config"])
        made = technique(load_model(recipe["from"]), dataset, progress)
        steps = (*made.lineage[:-1], dataclasses.replace(made.lineage[-1], origin="zoo"))
        return dataclasses.replace(made, name=name, lineage=steps)
    train = Train(**recipe["train"])
    start = fresh_variant(recipe["model"], dataset, train.seed)
    module = fit(train, start, dataset, progress or (lambda fraction, message: None), checkpoint=checkpoint)
    step = dataclasses.replace(train.step(start), origin="zoo")
    return start.derive(name, step, model=module)


def build(name: str, folder: Path = FOLDER, progress: Progress | None = None) -> dict[str, Any]:
    """Train `name`, measure it on the test split, write weights and card; returns the card."""
    checkpoint = folder / f".{name}.checkpoint"
    variant = train_from_recipe(name, progress, checkpoint)
    variant.save(folder / name)
    document = _write_card(name, variant, folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return document


def ship_coded(name: str, content: bytes, seed: int, folder: Path = FOLDER) -> dict[str, Any]:
    """Put a coded file (`labkit.encode`) among the shipped networks, measured as `build` does; returns its card.

    seed: the one that the network was trained with, which the file itself does not tell.
    """
    from labkit.encode import decode

    write_atomically(folder / name / CODED, content)
    return _write_card(name, decode(content), folder, seed=seed)


def _write_card(name: str, variant: Variant, folder: Path, **more: Any) -> dict[str, Any]:
    from labkit.measure.quality import evaluate
    from labkit.train import uses_bfloat16

    recipe = recipes()[name]
    dataset = load_dataset(recipe["dataset"])
    scores = evaluate(variant, dataset, "test")
    environment = current()
    document = {
        "model": name,
        "dataset": dataset.name,
        "data_sha256": dataset.checksum,
        "recipe": recipe,
        **more,
        "metric": dataset.task.metric,
        "split": "test",
        "n_samples": len(scores),
        "quality": round(dataset.task.quality(scores), 6),
        "quality_ci95": [round(bound, 6) for bound in dataset.task.interval(scores)],
        "parameters": sum(parameter.numel() for parameter in variant.model.parameters()),
        "size_bytes": variant.size_bytes,
        "trained_in_bfloat16": uses_bfloat16(recipe.get("train", {}).get("precision", "auto")),
        "trained_with": {"torch": environment.versions.get("torch", ""), "cpu": environment.cpu_model},
    }
    write_atomically(folder / name / "card.json", json.dumps(document, indent=1).encode())
    return document


__all__ = [
    "build",
    "card",
    "derived",
    "load_model",
    "names",
    "recipes",
    "ship_coded",
    "train_from_recipe",
    "trained_on",
]
