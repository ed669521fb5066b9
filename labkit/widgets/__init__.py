"""Panels for the lessons: a form, a job and a view. They run only what a cell could run too."""

from __future__ import annotations

from labkit.widgets.compare_panel import ComparePanel
from labkit.widgets.convert_panel import ConvertPanel
from labkit.widgets.form import Form
from labkit.widgets.format_drawing import draw_map
from labkit.widgets.format_map import FormatMap
from labkit.widgets.job import Job
from labkit.widgets.microscope_panel import MicroscopePanel
from labkit.widgets.panel import Panel
from labkit.widgets.view import View

__all__ = [
    "ComparePanel",
    "ConvertPanel",
    "Form",
    "FormatMap",
    "Job",
    "MicroscopePanel",
    "Panel",
    "View",
    "draw_map",
]
