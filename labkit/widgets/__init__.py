"""Panels for the lessons: a form, a job and a view. They run only what a cell could run too."""

from __future__ import annotations

from labkit.widgets.clipping_drawing import draw_clipping
from labkit.widgets.clipping_explorer import ClippingExplorer
from labkit.widgets.clipping_rows import clipping_table, sweep_clipping, watch
from labkit.widgets.compare_panel import ComparePanel
from labkit.widgets.convert_panel import ConvertPanel
from labkit.widgets.explain_panel import ExplainPanel
from labkit.widgets.form import Form
from labkit.widgets.format_drawing import draw_map
from labkit.widgets.format_map import FormatMap
from labkit.widgets.grid_drawing import draw_grid
from labkit.widgets.grid_explorer import GridExplorer
from labkit.widgets.grid_rows import grid_table, make_grid
from labkit.widgets.job import Job
from labkit.widgets.microscope_panel import MicroscopePanel
from labkit.widgets.mixed_drawing import draw_assignment
from labkit.widgets.mixed_game import MixedGame
from labkit.widgets.mixed_rows import assignment_table, points_view, tally
from labkit.widgets.panel import Panel
from labkit.widgets.sensitivity_drawing import draw_sensitivity
from labkit.widgets.sensitivity_explorer import SensitivityExplorer
from labkit.widgets.sensitivity_rows import curves_of, sensitivity_says, sensitivity_table
from labkit.widgets.view import View

__all__ = [
    "ClippingExplorer",
    "ComparePanel",
    "ConvertPanel",
    "ExplainPanel",
    "Form",
    "FormatMap",
    "GridExplorer",
    "Job",
    "MicroscopePanel",
    "MixedGame",
    "Panel",
    "SensitivityExplorer",
    "View",
    "assignment_table",
    "clipping_table",
    "curves_of",
    "draw_assignment",
    "draw_clipping",
    "draw_grid",
    "draw_map",
    "draw_sensitivity",
    "grid_table",
    "make_grid",
    "points_view",
    "sensitivity_says",
    "sensitivity_table",
    "sweep_clipping",
    "tally",
    "watch",
]
