"""What a notebook that is handed out, or published, must not hold.

No text of a solution, wherever it might hide: in a cell, in what a cell printed, in metadata. No folder of
the machine that ran it. And no live widget: saved without its state, it breaks GitHub's view of the notebook.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import NotebookError

_SHORTEST_SECRET = 8
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def secrets_in(lines: Iterable[str]) -> Iterator[str]:
    """What would give a solution away: the value in each line, or the whole line where that is short."""
    for line in map(_squeeze, lines):
        value = re.sub(r"^(\w+ = |return )", "", line)
        secret = value if len(value) >= _SHORTEST_SECRET else line
        if len(secret) >= _SHORTEST_SECRET:
            yield secret


def refuse_secrets(views: Mapping[str, Any], secrets: Iterable[str], name: str) -> None:
    """Raise NotebookError if a secret is anywhere in a cell of the views "lesson" and "exercises"."""
    hidden = sorted(secrets)
    for view in ("lesson", "exercises"):
        for cell in views[view].cells:
            for text in map(_squeeze, _texts(cell)):
                if leaked := next((secret for secret in hidden if secret in text), None):
                    raise NotebookError(f"{name}: cell {cell.id!r} of the {view} gives away {leaked!r}")


def refuse_private_folders(notebook: Any, name: str) -> None:
    """Raise NotebookError if a cell, or its output, holds the path of a folder of this machine."""
    folders = (sys.prefix, Path.cwd(), Path.home(), tempfile.gettempdir())
    ours = [f"{folder}{os.sep}" for folder in folders if Path(folder).name]  # a home of "/" is everywhere
    for cell in notebook.cells:
        if shown := next((path for text in _texts(cell) for path in ours if path in text), None):
            raise NotebookError(f"{name}: cell {cell.id!r} shows the folder {shown}: leave it out")


def drop_widgets(notebook: Any) -> None:
    """Take live widgets out of the outputs; what a widget showed besides, a picture or a table, stays."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_readable(output)]


def _is_readable(output: Any) -> bool:
    """Take the live widget out, and tell whether anything but its name remains."""
    data = output.get("data", {})
    return data.pop(_WIDGET_VIEW, None) is None or set(data) != {"text/plain"}


def _texts(value: Any) -> Iterator[str]:
    """All strings in a cell, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _squeeze(text: str) -> str:
    return " ".join(text.split())
