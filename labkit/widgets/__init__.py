"""Panels for the lessons: a form, a job and a view. They run only what a cell could run too."""

from __future__ import annotations

from labkit.widgets.anatomy_drawing import draw_anatomy
from labkit.widgets.anatomy_rows import Weighed, anatomy_table, byte_groups
from labkit.widgets.anatomy_view import AnatomyView
from labkit.widgets.channel_drawing import draw_widths
from labkit.widgets.channel_game import ChannelGame
from labkit.widgets.channel_rows import Options, widths_table, widths_view
from labkit.widgets.clipping_drawing import draw_clipping
from labkit.widgets.clipping_explorer import ClippingExplorer
from labkit.widgets.clipping_rows import clipping_table, sweep_clipping, watch
from labkit.widgets.codebook_drawing import draw_codebook
from labkit.widgets.codebook_explorer import CodebookExplorer
from labkit.widgets.codebook_rows import share_weights, sharing_table, sweep_levels
from labkit.widgets.coding_drawing import draw_coding
from labkit.widgets.coding_panel import CodingPanel
from labkit.widgets.coding_rows import CodedPoint, find_point
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
from labkit.widgets.huffman_builder import HuffmanBuilder
from labkit.widgets.huffman_drawing import draw_forest
from labkit.widgets.huffman_rows import Forest, forest_table
from labkit.widgets.job import Job
from labkit.widgets.microscope_panel import MicroscopePanel
from labkit.widgets.mixed_drawing import draw_assignment
from labkit.widgets.mixed_game import MixedGame
from labkit.widgets.mixed_rows import assignment_table, points_view, tally
from labkit.widgets.panel import Panel
from labkit.widgets.sensitivity_drawing import draw_sensitivity
from labkit.widgets.sensitivity_explorer import SensitivityExplorer
from labkit.widgets.sensitivity_rows import curves_of, sensitivity_says, sensitivity_table
from labkit.widgets.soft_target_drawing import draw_soft_target
from labkit.widgets.soft_target_explorer import SoftTargetExplorer
from labkit.widgets.soft_target_rows import ask, soft_target_table
from labkit.widgets.temperature_drawing import draw_temperatures
from labkit.widgets.temperature_panel import TemperaturePanel
from labkit.widgets.temperature_rows import temperature_table
from labkit.widgets.ticket_drawing import draw_tickets
from labkit.widgets.ticket_explorer import TicketExplorer
from labkit.widgets.ticket_rows import rounds_of, tickets_say, tickets_table
from labkit.widgets.view import View

__all__ = [
    "AnatomyView",
    "ChannelGame",
    "ClippingExplorer",
    "CodebookExplorer",
    "CodedPoint",
    "CodingPanel",
    "ComparePanel",
    "ConvertPanel",
    "ExplainPanel",
    "Forest",
    "Form",
    "FormatMap",
    "GridExplorer",
    "HuffmanBuilder",
    "Job",
    "MicroscopePanel",
    "MixedGame",
    "Options",
    "Panel",
    "SensitivityExplorer",
    "SoftTargetExplorer",
    "TemperaturePanel",
    "TicketExplorer",
    "View",
    "Weighed",
    "anatomy_table",
    "ask",
    "assignment_table",
    "byte_groups",
    "clipping_table",
    "coupling_table",
    "curves_of",
    "draw_anatomy",
    "draw_assignment",
    "draw_clipping",
    "draw_codebook",
    "draw_coding",
    "draw_coupling",
    "draw_forest",
    "draw_grid",
    "draw_map",
    "draw_sensitivity",
    "draw_soft_target",
    "draw_temperatures",
    "draw_tickets",
    "draw_widths",
    "find_point",
    "forest_table",
    "grid_table",
    "make_grid",
    "points_view",
    "rounds_of",
    "sensitivity_says",
    "sensitivity_table",
    "share_weights",
    "sharing_table",
    "soft_target_table",
    "sweep_clipping",
    "sweep_levels",
    "tally",
    "temperature_table",
    "tickets_say",
    "tickets_table",
    "watch",
    "widths_table",
    "widths_view",
]
