"""Where the time goes, as two bars of the kinds of operators; `explanation.table()` says the same in words.

Drawn off-screen on a canvas of its own, as all figures of labkit are (labkit/plots.py). Each kind has its own
hatching as well as its own colour (Okabe and Ito 2008), and its name in the legend.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from labkit.explain.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#BBBBBB")
_HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "")
_DRAWING = threading.Lock()  # matplotlib shares its fonts among threads
_REST = "all others"


def plot_time(explanation: Explanation) -> Figure:
    """Milliseconds of a run by kind of operator and precision, of the variant and of its baseline if there is one.

    The six most expensive kinds of both together are drawn apart, what is left as one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    profiles = [each for each in (explanation.against, explanation.profile) if each is not None]
    times = [each.by_kind() for each in profiles]
    kinds = sorted(
        {kind for each in times for kind in each}, key=lambda kind: -max(t.get(kind, 0.0) for t in times)
    )
    drawn = kinds[: len(_COLORS) - 1]
    bars = [[time.get(kind, 0.0) for kind in drawn] for time in times]
    rest = [sum(time.values()) - sum(bar) for time, bar in zip(times, bars, strict=True)]
    with _DRAWING:
        figure = Figure(figsize=(8.0, 1.6 + 0.7 * len(profiles)), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.3, 0.28, 0.67, 0.42))
        starts = [0.0] * len(profiles)
        for index, kind in enumerate([*drawn, *([_REST] if max(rest) > 0 else [])]):
            widths = rest if kind == _REST else [bar[index] for bar in bars]
            axes.barh(
                range(len(profiles)), widths, left=starts, label=kind, color=_COLORS[index], hatch=_HATCHES[index],
                edgecolor="white",
            )  # fmt: skip
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        axes.set_yticks(range(len(profiles)), [_short(each.variant) for each in profiles])
        axes.invert_yaxis()
        axes.set_xlabel(f"ms in operators, batch of {explanation.profile.batch_size}")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(fontsize=8, loc="upper left", ncols=4, frameon=False)
    said = explanation.findings[0].says if explanation.findings else "Nothing stands out."
    figure.set_label(
        f"Time by kind of operator, of {' and '.join(each.variant for each in profiles)}. {said}"
    )
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29] + "…"
