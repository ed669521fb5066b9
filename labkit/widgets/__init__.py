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
from labkit.widgets.soft_target_drawing import draw_soft_target
from labkit.widgets.soft_target_explorer import SoftTargetExplorer
from labkit.widgets.soft_target_rows import ask, soft_target_table
from labkit.widgets.temperature_drawing import draw_temperatures
from labkit.widgets.temperature_panel import TemperaturePanel
from labkit.widgets.temperature_rows import temperature_table
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
    "SoftTargetExplorer",
    "TemperaturePanel",
    "View",
    "ask",
    "assignment_table",
    "clipping_table",
    "draw_assignment",
    "draw_clipping",
    "draw_grid",
    "draw_map",
    "draw_soft_target",
    "draw_temperatures",
    "grid_table",
    "make_grid",
    "points_view",
    "soft_target_table",
    "sweep_clipping",
    "temperature_table",
    "tally",
    "watch",
]
