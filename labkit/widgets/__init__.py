"""Panels for the lessons: a form, a job and a view. They run only what a cell could run too."""

from __future__ import annotations

from labkit.widgets.channel_drawing import draw_widths
from labkit.widgets.channel_game import ChannelGame
from labkit.widgets.channel_rows import Options, widths_table, widths_view
from labkit.widgets.clipping_drawing import draw_clipping
from labkit.widgets.clipping_explorer import ClippingExplorer
from labkit.widgets.clipping_rows import clipping_table, sweep_clipping, watch
from labkit.widgets.compare_panel import ComparePanel
from labkit.widgets.convert_panel import ConvertPanel
from labkit.widgets.coupling_drawing import coupling_table, draw_coupling
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
from labkit.widgets.ticket_drawing import draw_tickets
from labkit.widgets.ticket_explorer import TicketExplorer
from labkit.widgets.ticket_rows import rounds_of, tickets_say, tickets_table
from labkit.widgets.view import View

__all__ = [
    "ChannelGame",
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
    "Options",
    "Panel",
    "SensitivityExplorer",
    "TicketExplorer",
    "View",
    "assignment_table",
    "clipping_table",
    "coupling_table",
    "curves_of",
    "draw_coupling",
    "draw_tickets",
    "rounds_of",
    "tickets_say",
    "tickets_table",
    "draw_assignment",
    "draw_clipping",
    "draw_grid",
    "draw_map",
    "draw_sensitivity",
    "draw_widths",
    "grid_table",
    "make_grid",
    "points_view",
    "sensitivity_says",
    "sensitivity_table",
    "sweep_clipping",
    "tally",
    "watch",
    "widths_table",
    "widths_view",
]
