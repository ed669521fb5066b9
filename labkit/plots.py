"""Figures that anyone can read: with any eyes, in print, or by their words alone.

Colour is never the only carrier: each runtime has a shape as well, and each point its name beside it.
The colours are Okabe and Ito's (2008), which people with any common kind of colour blindness tell apart.
Every figure carries its own text alternative, and `table_html` says the same in rows and columns.

Figures are drawn off-screen, each on a canvas of its own. pyplot keeps one "current figure" for the whole
process, and two threads that share it draw into each other's pictures.
"""

from __future__ import annotations

import base64
import html
import io
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from labkit.measure.front import front, sign, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_LOG_FROM_RATIO = 15  # an axis whose largest value is so many times its smallest is drawn in logarithms
_MOST_NAMES = 10  # in a crowd, only the front and the chosen one are named
_DRAWING = threading.Lock()  # matplotlib shares its fonts among threads


def pareto(
    measurements: Iterable[Any],
    x: str = "latency_p50_ms",
    y: str = "quality",
    chosen: str | None = None,
    mark: str = "chosen",
) -> Figure:
    """Draw what each candidate costs (`x`) against what it is worth (`y`), and the Pareto front.

    The front joins the candidates that no other beats in both; its height is the best to be had for a
    budget. measurements: Measurements, or mappings with the same names; `y`_ci95 becomes an error bar.
    `chosen` is the key, or the variant's name, of the one to ring, and `mark` the word beside it. Rows without a value
    are counted, not drawn.
    """
    rows = list(measurements)
    drawn = [row for row in rows if value(row, x) is not None and value(row, y) is not None]
    best = front(drawn, x, y)
    names = labels(drawn)
    with _DRAWING:
        figure, axes = _empty_axes(_axis_title(x, rows), _axis_title(y, rows))
        if drawn:
            _draw_points(axes, drawn, x, y)
            _draw_front(axes, best, x, y)
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
            picked = [chosen in (value(row, "key"), value(row, "variant")) for row in drawn] if chosen else []
            written = [
                name if len(drawn) <= _MOST_NAMES or row in best or (picked and picked[index]) else ""
                for index, (row, name) in enumerate(zip(drawn, names, strict=True))
            ]
            if picked:
                written = [
                    f"{name} ({mark})" if ring else name for name, ring in zip(written, picked, strict=True)
                ]
            _write_names(axes, [(value(row, x), value(row, y)) for row in drawn], written, picked)
        else:
            axes.text(0.5, 0.5, "nothing measured yet", ha="center", transform=axes.transAxes, color="0.35")
            axes.set(xticks=[], yticks=[])
        if len(drawn) < len(rows):
            figure.text(
                0.99, 0.01, f"{len(rows) - len(drawn)} not drawn: no {x} or no {y}", ha="right", fontsize=8
            )
    on_front = ", ".join(name for row, name in zip(drawn, names, strict=True) if row in best)
    figure.set_label(
        f"{y} against {x} for {len(drawn)} candidates"
        + (f"; on the Pareto front: {on_front}" if drawn else "")
        + (f"; {mark}: {chosen}" if chosen else "")
    )
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; its text alternative goes along as the file's Description."""
    buffer = io.BytesIO()
    with _DRAWING:
        figure.savefig(buffer, format="png", metadata={"Description": str(figure.get_label())})
    return buffer.getvalue()


def image_html(figure: Figure) -> str:
    """The figure as an <img> element with its text alternative (ipywidgets' own Image can hold none)."""
    alt, data = html.escape(str(figure.get_label())), base64.b64encode(png(figure)).decode()
    return f'<img class="labkit-image" style="max-width:100%" alt="{alt}" src="data:image/png;base64,{data}">'


def table_html(rows: Iterable[Any], columns: Sequence[str]) -> str:
    """An HTML table; everything is escaped, and a missing figure says why in its title."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row, column) for column in columns)}</tr>" for row in rows)
    style = 'class="labkit-table" style="border-spacing:0.8em 0.1em"'
    return f"<table {style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def labels(rows: Sequence[Any]) -> list[str]:
    """A name for each row: its variant; if two share variant and runtime, whatever settings differ as well."""
    parts = (("precision", "{}"), ("batch_size", "batch {}"), ("intra_op_threads", "{} threads"))
    varying = [(name, form) for name, form in parts if len({value(row, name) for row in rows}) > 1]
    if len({(value(row, "variant"), value(row, "runtime")) for row in rows}) == len(rows):
        varying = []
    return [
        ", ".join([str(value(row, "variant")), *(form.format(value(row, name)) for name, form in varying)])
        for row in rows
    ]


def _cell(row: Any, column: str) -> str:
    given = value(row, column)
    if given is None:
        reason = (value(row, "null_reasons") or {}).get(column, "")
        return f'<td title="{html.escape(str(reason))}">–</td>'
    align = ' style="text-align:right"' if isinstance(given, (int, float)) else ""
    return f"<td{align}>{html.escape(_text(given))}</td>"


def _text(given: Any) -> str:
    """Whole numbers in groups of three, others to four figures, an interval as [low, high]."""
    if isinstance(given, bool) or not isinstance(given, (int, float, tuple, list)):
        return str(given)
    if isinstance(given, (tuple, list)):
        return f"[{', '.join(_text(item) for item in given)}]"
    return f"{given:,}" if isinstance(given, int) else f"{given:.4g}" if abs(given) < 1e4 else f"{given:,.0f}"


def _axis_title(name: str, rows: Sequence[Any]) -> str:
    shown = value(rows[0], "quality_metric") or name if rows and name == "quality" else name
    return f"{shown}  ({'more' if sign(name, rows) > 0 else 'less'} is better)"


def _empty_axes(x_title: str, y_title: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.13, 0.14, 0.85, 0.76))
    axes.set(xlabel=x_title, ylabel=y_title)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.14, 0.16)
    axes.locator_params(nbins=7)  # every tick costs time, and a reader waits for this figure
    return figure, axes


def _draw_points(axes: Axes, rows: Sequence[Any], x: str, y: str) -> None:
    runtimes = list(dict.fromkeys(str(value(row, "runtime")) for row in rows))
    for index, runtime in enumerate(runtimes):
        mine = [row for row in rows if str(value(row, "runtime")) == runtime]
        intervals = [value(row, f"{y}_ci95") or (value(row, y), value(row, y)) for row in mine]
        below = [value(row, y) - low for row, (low, _) in zip(mine, intervals, strict=True)]
        above = [high - value(row, y) for row, (_, high) in zip(mine, intervals, strict=True)]
        axes.errorbar(
            [value(row, x) for row in mine],
            [value(row, y) for row in mine],
            [below, above],
            label=runtime,
            color=OKABE_ITO[index % len(OKABE_ITO)],
            marker=SHAPES[index % len(SHAPES)],
            markersize=8,
            linestyle="none",
            elinewidth=0.9,
            capsize=3,
        )
    places = [value(row, x) for row in rows]
    if min(places) > 0 and max(places) > _LOG_FROM_RATIO * min(places):
        axes.set_xscale("log", subs=(2, 5))
        for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatted(lambda tick, _: f"{tick:g}")


def _draw_front(axes: Axes, best: Sequence[Any], x: str, y: str) -> None:
    """Steps through the points of `best`, and on to the edges: what any budget buys."""
    points = sorted({(value(row, x), value(row, y)) for row in best})
    axes.autoscale_view()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    where: Literal["post", "pre"]
    if sign(x, best) < 0:
        where, points = "post", [(points[0][0], bottom), *points, (right, points[-1][1])]
    else:
        where, points = "pre", [(left, points[0][1]), *points, (points[-1][0], bottom)]
    axes.step(
        *zip(*points, strict=True), where=where, color="0.45", linestyle="--", label="Pareto front", zorder=1
    )
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _write_names(
    axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], picked: Sequence[bool]
) -> None:
    """Write each name near its point, where it covers the fewest names and points and stays inside the axes."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    style = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    pixels = [axes.transData.transform(point) for point in points]
    taken = [Bbox([(x - 7, y - 7), (x + 7, y + 7)]) for x, y in pixels]
    for index, (point, (x, y)) in enumerate(zip(points, pixels, strict=True)):
        chosen = bool(picked) and picked[index]
        if not names[index]:
            continue
        note = axes.annotate(
            names[index],
            point,
            (0, 0),
            textcoords="offset pixels",
            fontsize=9,
            fontweight="bold" if chosen else "normal",
            arrowprops=style,
            bbox={"pad": 0.5, "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        if chosen:
            axes.plot(*point, marker="o", markersize=17, fillstyle="none", color="black")
        width, height = Text.get_window_extent(note).size
        places = [
            Bbox.from_bounds(x + (12 if right else -12 - width), y + up, width, height)
            for up in (6, -8 - height, 22, -24 - height, 38, -40 - height, 54, -56 - height)
            for right in (True, False)
        ]
        box = min(places, key=lambda place: _clashes(place, taken, axes.bbox))
        note.xyann = (box.x0 - x, box.y0 - y)
        taken.append(box)


def _clashes(place: Any, taken: Sequence[Any], area: Any) -> int:
    """How many of the boxes `taken` the box `place` covers; leaving `area` is worse than any of them."""
    inside = area.x0 <= place.x0 and place.x1 <= area.x1 and area.y0 <= place.y0 and place.y1 <= area.y1
    return int(place.count_overlaps(taken)) + (0 if inside else len(taken) + 1)
