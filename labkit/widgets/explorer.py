"""Explorer: settings on top, below them a drawing, its words and its table, anew whenever a control moves.

There is no job and no button: whatever is shown is computed from a few numbers at once, and no model runs.
"""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import ipywidgets as widgets

from labkit.widgets.catalogue import text
from labkit.widgets.form import Form

_WIDE = "32em"  # for a slider of a hundred steps


class Shown(NamedTuple):
    """What an explorer shows: an SVG document, one sentence, an HTML table, and the line of code that draws it."""

    picture: str
    says: str
    table: str
    code: str


class Explorer(widgets.VBox):  # type: ignore[misc]
    """A form and what it shows; a subclass says `look(config)`, and its `name`, which becomes a class of the page."""

    name = "explorer"

    def __init__(self, form: Form) -> None:
        self.form = form
        for control in form.controls.values():
            control.layout.width, control.layout.flex = _WIDE, "0 0 auto"
        self.picture, self.says, self.table, self.code = (widgets.HTML() for _ in range(4))
        for name, part in {"figure": self.picture, "says": self.says, "rows": self.table}.items():
            part.add_class(f"labkit-{name}")
        self.code.add_class("labkit-command")
        beside = widgets.HBox([self.picture, self.table], layout={"flex_flow": "row wrap"})
        super().__init__([form, self.says, beside, self.code])
        self.add_class("labkit-explorer")
        self.add_class(f"labkit-{self.name}")
        form.observe(self._show, "config")
        self._show()

    def look(self, config: Any) -> Shown:
        """What to show for these settings."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"{type(self).__name__}({', '.join(self.form.controls)})"

    def _show(self, change: object = None) -> None:
        if self.form.config is None:
            return  # the form says what is wrong
        shown = self.look(self.form.config)
        self.picture.value, self.table.value = shown.picture, shown.table
        self.says.value = f'<p role="status">{html.escape(shown.says)}</p>'
        self.code.value = cell_html(shown.code)


def cell_html(code: str) -> str:
    """A line of Python to copy into a cell, wrapped where it is long."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere"
    return f'{html.escape(text("cell"))}<pre style="{style}">{html.escape(code)}</pre>'
