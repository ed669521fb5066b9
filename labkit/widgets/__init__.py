"""Panels for the lessons: a form, a job and a view. They run only what a cell could run too."""

from __future__ import annotations

from labkit.widgets.compare_panel import ComparePanel
from labkit.widgets.form import Form
from labkit.widgets.job import Job
from labkit.widgets.panel import Panel
from labkit.widgets.view import View

__all__ = ["ComparePanel", "Form", "Job", "Panel", "View"]
