"""Trained networks and finished experiments, kept in a folder: what is there is not trained again.

Training takes an hour, timing two minutes and a quiet machine. With `--keep FOLDER` the first run trains and the
second only measures, and an interrupted one goes on where it was. What is kept is found by its whole recipe, so that
a changed setting is trained anew; the code that trains is no part of that: after changing it, choose another folder.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from labkit.cli.terminal import progress_line, say
from labkit.data import Dataset
from labkit.files import write_atomically
from labkit.kept import digest, facts_of, kept, place_of
from labkit.technique import Technique
from labkit.variant import Variant

Row = dict[str, Any]

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


def keep_in(folder: Path) -> None:
    """From now on everything is kept here, and taken from here."""
    _folder.set(folder.resolve())


def folder() -> Path:
    """Where everything is kept; without `--keep`, a folder that is gone when this process ends."""
    return _folder.get() or Path(_scratch().name)


def trained(technique: Technique, source: Variant, dataset: Dataset) -> Variant:
    """What `technique` makes of `source`, or made of it before."""
    place = place_of(folder(), technique, source, dataset)
    if (place / "variant.json").is_file():
        say(f"{place.name} is kept, it is not trained again")
    return kept(folder(), technique, source, dataset, progress_line())


def found(
    name: str, settings: Mapping[str, Any], dataset: Dataset, find: Callable[[], list[Row]]
) -> list[Row]:
    """The rows that `find` finds with these settings, or found before."""
    file = folder() / f"{name}-{digest({**settings, **facts_of(dataset)})}.json"
    if file.is_file():
        say(f"{file.name} is kept, it is not measured again")
        rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))
        return rows
    rows = find()
    write_atomically(file, json.dumps(rows).encode())
    return rows


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
