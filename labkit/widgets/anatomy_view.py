"""AnatomyView: a coded file as a drawing, its sentences, and every byte in a table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from labkit.widgets.anatomy_drawing import draw_anatomy
from labkit.widgets.anatomy_rows import Weighed, anatomy_says, anatomy_table
from labkit.widgets.catalogue import text


class AnatomyView(widgets.VBox):  # type: ignore[misc]
    """Shows the last of the files that it is given; a panel's view, or one by itself.

    AnatomyView([Weighed(anatomy("small.lkz"), baselines(variant))])
    """

    def __init__(self, files: Sequence[Weighed] = ()) -> None:
        self.says, self.figure, self.table = (widgets.HTML() for _ in range(3))
        for name, part in {"says": self.says, "figure": self.figure, "rows": self.table}.items():
            part.add_class(f"labkit-{name}")
        rows = widgets.Accordion([self.table], titles=[text("anatomy.table")], selected_index=None)
        super().__init__([self.says, self.figure, rows])
        self.add_class("labkit-anatomy")
        self.show(files)

    def show(self, files: Sequence[Any]) -> None:
        """Draw the last of `files`, each a Weighed; without one, say that there is none."""
        if not files:
            self.says.value = f"<p>{html.escape(text('anatomy.none'))}</p>"
            self.figure.value = self.table.value = ""
            return
        weighed = files[-1]
        self.says.value = f"<p>{html.escape(anatomy_says(weighed))}</p>"
        self.figure.value, self.table.value = draw_anatomy(weighed), anatomy_table(weighed)

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return "AnatomyView()"
