"""View: what a job has found so far, as a figure with the same in a table beside it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from labkit.plots import image_html, pareto, table_html

COLUMNS = (
    "variant",
    "runtime",
    "latency_p50_ms",
    "speedup",
    "speedup_ci95",
    "quality",
    "quality_ci95",
    "size_bytes",
)
Draw = Callable[[Sequence[Any]], tuple[Any, str]]
"""Rows → a figure, matplotlib's or an SVG document, and an HTML table."""


def pareto_and_table(rows: Sequence[Any]) -> tuple[Any, str]:
    """The Pareto figure of `rows`, and a table of the columns that one reads first."""
    return pareto(rows), table_html(rows, COLUMNS)


class View(widgets.HBox):  # type: ignore[misc]
    """`show(rows)` draws them. The picture is HTML, as ipywidgets' Image has no place for a text alternative.

    `note`, plain text, stands below the table. An empty figure is drawn at once: that loads matplotlib before
    anybody waits for a result.
    """

    def __init__(self, draw: Draw = pareto_and_table, note: str = "") -> None:
        self._draw, self._note = draw, f"<p>{html.escape(note)}</p>" if note else ""
        self.figure, self.table = widgets.HTML(), widgets.HTML()
        self.figure.add_class("labkit-figure")
        self.table.add_class("labkit-rows")
        super().__init__([self.figure, self.table], layout={"flex_flow": "row wrap"})
        self.show(())

    def show(self, rows: Sequence[Any]) -> None:
        """Draw the figure and the table of all `rows`."""
        figure, table = self._draw(rows)
        self.table.value = table + self._note
        self.figure.value = figure if isinstance(figure, str) else image_html(figure)
