"""The coding panel: sparsity and levels of a coded file, recorded behind the sliders, made here at a click."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from labkit.progress import Progress
from labkit.technique import check_knobs, knob
from labkit.widgets.anatomy_rows import Weighed
from labkit.widgets.anatomy_view import AnatomyView
from labkit.widgets.catalogue import text
from labkit.widgets.coding_drawing import draw_coding
from labkit.widgets.coding_rows import CodedPoint, find_point, point_says, points_table, tries_table
from labkit.widgets.explorer import cell_html
from labkit.widgets.form import Form
from labkit.widgets.panel import Panel

_WIDE = "32em"  # for a slider of many stops
Measure = Callable[[float, int, Progress], tuple[CodedPoint, Weighed]]


class CodingPanel(Panel):
    """Files of one network with other sparsities and levels, their bytes and what they keep.

    CodingPanel(recording.points, recording.float_bytes, recording.float_accuracy_pct, measure)

    points: recorded, one for each stop of both sliders. measure(sparsity, levels, progress) makes such a file and
    returns its point and the file, Weighed; `tries` keeps the points.
    """

    def __init__(
        self, points: Sequence[CodedPoint], float_bytes: int, float_accuracy_pct: float, measure: Measure
    ) -> None:
        self.points, self._float, self._measure = tuple(points), (float_bytes, float_accuracy_pct), measure
        self.tries = list[CodedPoint]()
        self.says, self.picture, self.tried = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for name in ("says", "picture", "tried"):
            getattr(self, name).add_class(f"labkit-{name}")
        form = Form(_settings(self.points))
        super().__init__(form, self._try, self._code, AnatomyView())
        self.run_button.description = text("coding.measure")
        self.run_button.tooltip = text("coding.measure.help")
        self.say(text("coding.idle"))
        table = widgets.Accordion(
            [widgets.HTML(points_table(self.points))], titles=[text("coding.table")], selected_index=None
        )
        for control in form.controls.values():
            control.layout.width = _WIDE
        _, bar, *rest = self.children
        self.set_trait("children", (form, self.says, self.picture, table, bar, self.tried, *rest))
        self.add_class("labkit-coding")

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"CodingPanel({len(self.points)} recorded files)"

    def _form_changed(self, change: object = None) -> None:
        """Look up what was recorded; nothing is run."""
        point = find_point(self.points, **vars(self.form.config))
        self.says.value = f'<p role="status">{html.escape(point_says(point, self._float[0]))}</p>'
        self.picture.value = draw_coding(self.points, point, *self._float)
        self.command.value = cell_html(self._code(self.form.config))

    def _code(self, config: Any) -> str:
        return f"measure({config.sparsity}, {config.levels}, silent)"

    def _try(self, config: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> CodedPoint:
        point, weighed = self._measure(config.sparsity, config.levels, progress)
        self.tries.append(point)
        self.tried.value = tries_table(self.tries, self.points)
        show([weighed])
        return point


def _settings(points: Sequence[CodedPoint]) -> type[Any]:
    """The sliders, which stop only where something was recorded; at first in the middle."""
    sparsities = sorted({point.sparsity for point in points})
    levels = sorted({point.levels for point in points})
    fields = [
        (
            "sparsity",
            float,
            knob(sparsities[len(sparsities) // 2], text("coding.sparsity.help"), choices=sparsities),
        ),
        ("levels", int, knob(levels[len(levels) // 2], text("coding.levels.help"), choices=levels)),
    ]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("CodingSettings", fields, frozen=True, namespace=namespace)
