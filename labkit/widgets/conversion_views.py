"""What the panels of the conversion lesson show: a figure, and the same in a table beside it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labkit.microscope import MicroscopeReport, plot_departures
from labkit.plots import _DRAWING, OKABE_ITO, SHAPES, table_html
from labkit.widgets.catalogue import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARITY_COLUMNS = (
    "hop",
    "batch_size",
    "max_abs_error",
    "max_rel_error",
    "top1_agreement",
    "tolerance",
    "verdict",
)
MICROSCOPE_COLUMNS = ("operator", "layer", "counterpart", "snr_db", "max_rel_error", "status")
_BEFORE, _AFTER = 3, 4  # rows of the microscope that are shown around the departure; the others unfold
_SMALLEST = 1e-9  # an error of exactly 0 has no place on a logarithmic axis: it is drawn here


def parity_view(rows: Sequence[Any]) -> tuple[Any, str]:
    """The largest error of each comparison against the tolerance. rows: mappings with PARITY_COLUMNS."""
    return errors_figure(rows), table_html(rows, PARITY_COLUMNS) if rows else ""


def errors_figure(rows: Sequence[Any]) -> Figure:
    """`max_rel_error` of each hop at each batch size, on a logarithmic axis, with the tolerance as a line."""
    with _DRAWING:
        figure, axes = _axes("max_rel_error  (log)", "" if rows else text("convert.none"))
        if rows:
            _draw_errors(axes, rows)
    told = ", ".join(f"{row['hop']} at batch {row['batch_size']} {row['max_rel_error']:.2g}" for row in rows)
    tolerance = rows[-1]["tolerance"] if rows else 0.0
    figure.set_label(
        text("convert.figure", count=len(rows), errors=told, tolerance=tolerance)
        if rows
        else text("convert.none")
    )
    return figure


def _draw_errors(axes: Axes, rows: Sequence[Any]) -> None:
    batches = list(dict.fromkeys(str(row["batch_size"]) for row in rows))
    hops = list(dict.fromkeys(row["hop"] for row in rows))
    for index, hop in enumerate(hops):
        shift = 0.14 * (index - (len(hops) - 1) / 2)  # so that equal points do not hide one another
        mine = [row for row in rows if row["hop"] == hop]
        axes.plot(
            [batches.index(str(row["batch_size"])) + shift for row in mine],
            [max(row["max_rel_error"], _SMALLEST) for row in mine],
            SHAPES[index % len(SHAPES)],
            color=OKABE_ITO[index % len(OKABE_ITO)],
            label=hop,
            markersize=9,
        )
    tolerance = rows[-1]["tolerance"]
    axes.axhline(tolerance, color="#D55E00", linestyle="--", linewidth=1.4)
    axes.annotate(
        f"tolerance {tolerance:g}", (0, tolerance), xytext=(0, 4), textcoords="offset points", fontsize=9
    )
    largest = max(tolerance, *(row["max_rel_error"] for row in rows))
    axes.set(yscale="log", ylim=(_SMALLEST / 2, max(1.0, 3 * largest)), xlim=(-0.5, len(batches) - 0.5))
    axes.set(xticks=range(len(batches)), xticklabels=batches, xlabel="batch size")
    axes.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)


def microscope_view(reports: Sequence[MicroscopeReport]) -> tuple[Any, str]:
    """The figure of the one report, its sentence, and its rows; an empty figure where there is none yet."""
    if not reports:
        return empty_figure(text("microscope.none")), ""
    (report,) = reports
    rows = microscope_rows(report)
    place = next((index for index, row in enumerate(rows) if row["status"] == "departs"), 0)
    near = rows[max(0, place - _BEFORE) : place + _AFTER]
    counted = html.escape(text("microscope.rows", count=len(rows)))
    return (
        plot_departures(report),
        f'<p class="labkit-says"><strong>{html.escape(report.says)}</strong></p>'
        f"{table_html(near, MICROSCOPE_COLUMNS)}"
        f"<details><summary>{counted}</summary>{table_html(rows, MICROSCOPE_COLUMNS)}</details>",
    )


def microscope_rows(report: MicroscopeReport) -> list[dict[str, Any]]:
    """A report's rows as flat mappings with MICROSCOPE_COLUMNS."""
    return [
        {
            "operator": row.operator.operator,
            "layer": row.operator.layer or row.operator.node,
            "counterpart": row.counterpart,
            "snr_db": row.snr_db,
            "max_rel_error": row.max_rel_error,
            "status": row.status,
        }
        for row in report.rows
    ]


def empty_figure(words: str) -> Figure:
    """What a panel shows before there is anything to draw; `words` say so."""
    with _DRAWING:
        figure, _ = _axes("", words)
    figure.set_label(words)
    return figure


def _axes(y_title: str, empty: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.13, 0.14, 0.85, 0.76))
    axes.set(ylabel=y_title)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if empty:
        axes.text(0.5, 0.5, empty, ha="center", transform=axes.transAxes, color="0.35")
        axes.set(xticks=[], yticks=[])
    return figure, axes
