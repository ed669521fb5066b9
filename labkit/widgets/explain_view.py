"""What the detective's panel shows: the time of both models by kind of operator, the diagnosis, the operators."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from labkit.explain import Explanation, plot_time
from labkit.plots import table_html
from labkit.widgets.catalogue import text
from labkit.widgets.conversion_views import empty_figure

EXPLAIN_COLUMNS = ("operator", "layer", "computed in", "ms", "share")
_MOST_ROWS = 8


def explain_view(explanations: Sequence[Explanation]) -> tuple[Any, str]:
    """The figure of the one explanation, its sentences and its slowest operators; an empty figure without one."""
    if not explanations:
        return empty_figure(text("explain.none")), ""
    (found,) = explanations
    rows = explain_rows(found)
    sentences = "".join(f"<p>{html.escape(line)}</p>" for line in found.says.splitlines())
    counted = html.escape(text("explain.rows", shown=min(_MOST_ROWS, len(rows)), count=len(rows)))
    return plot_time(found), (
        f'<div class="labkit-says" style="max-width:52em">{sentences}</div>'
        f"<p>{counted}</p>{table_html(rows[:_MOST_ROWS], EXPLAIN_COLUMNS)}"
    )


def explain_rows(found: Explanation) -> list[dict[str, Any]]:
    """All operators as flat mappings with EXPLAIN_COLUMNS, the slowest first."""
    return [
        {
            "operator": each.kind,
            "layer": each.layer or "–",
            "computed in": each.precision,
            "ms": each.ms,
            "share": f"{each.share:.1%}",
        }
        for each in sorted(found.profile.operators, key=lambda each: -each.ms)
    ]
