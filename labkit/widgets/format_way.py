"""The way from one format to another, told step by step: what the map shows beside its drawing."""

from __future__ import annotations

from typing import Any

from labkit.convert.edges import Path, every_path, is_open
from labkit.widgets.catalogue import text

HOP_COLUMNS = ("hop", "from", "to", "converter", "here", "install")


def way(source: str, target: str) -> Path:
    """The converters to go through, on the shortest open way before others; () where none leads there."""
    return min(every_path(source, target), key=lambda path: not is_open(path), default=())


def hops(source: str, path: Path) -> list[dict[str, Any]]:
    """A path as rows: which converter goes from where to where, whether it is here, and what installs it."""
    rows = []
    for number, converter in enumerate(path, 1):
        available = converter.is_available()
        here = text("map.yes") if available.ok else available.reason
        row = (number, source, converter.target, converter.title, here, available.install or None)
        rows.append(dict(zip(HOP_COLUMNS, row, strict=True)))
        source = converter.target
    return rows
