"""The agreement of two models, layer by layer, as a figure; `report.table()` says the same in words.

Drawn off-screen on a canvas of its own, as all figures of labkit are (labkit/plots.py). Each status has its
own shape as well as its own colour (Okabe and Ito 2008).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from labkit.microscope.report import MicroscopeReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = {
    "equal": ("#0072B2", "o"),
    "recovers": ("#56B4E9", "v"),
    "departs": ("#D55E00", "X"),
    "after the departure": ("#CC79A7", "s"),
    "drifts": ("#E69F00", "D"),
}
_DRAWING = threading.Lock()  # matplotlib shares its fonts among threads
_TOP_DB = 150.0
_BOTTOM_DB = -10.0


def plot_departures(report: MicroscopeReport) -> Figure:
    """Signal-to-noise ratio of every operator's result, in the order of computation.

    Operators without a counterpart are left out; what lies outside −10..150 dB is drawn at the edge. The
    dashed line is the limit below which a tensor departs, and the first departure is named.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = min(_TOP_DB, report.scale.cap_db + 30)
    with _DRAWING:
        figure = Figure(figsize=(8.0, 4.0), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.14, 0.88, 0.74))
        axes.set(xlabel="operator, in the order of computation", ylabel="signal-to-noise ratio (dB)")
        axes.set(ylim=(_BOTTOM_DB - 5, top + 5), xlim=(-1, len(report.rows)))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        for status, (color, shape) in _STYLES.items():
            places = [
                (place, min(max(row.snr_db, _BOTTOM_DB), top))
                for place, row in enumerate(report.rows)
                if row.status == status and row.snr_db is not None
            ]
            if places:
                axes.plot(*zip(*places, strict=True), shape, color=color, label=status, markersize=6)
        axes.axhline(report.scale.limit_db, color="0.35", linestyle="--", linewidth=1)
        axes.annotate(
            "limit", (0, report.scale.limit_db), xytext=(2, 3), textcoords="offset points", fontsize=8
        )
        if report.first is not None:
            axes.axvline([row.status for row in report.rows].index("departs"), color="#D55E00", linewidth=1)
        title = f"first to depart: {report.first.operator.title}" if report.first else "nothing departs"
        axes.set_title(title, fontsize=9, loc="left", pad=22)
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False)
    figure.set_label(
        f"Agreement of {report.reference} and {report.other}, operator by operator. {report.says}"
    )
    return figure
