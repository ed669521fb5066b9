"""Tables of a generated page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table, each cell as `str` writes it; a bar in a cell would end it, so it becomes HTML."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join(lines)


@dataclass(frozen=True)
class Aim:
    """What was to be reached: a figure, and the limit that it may not fall below, or with `most` not exceed."""

    text: str
    figure: str
    limit: float
    most: bool = False


def aims_table(aims: Iterable[Aim], figures: Mapping[str, float | None]) -> str:
    """Each aim, what was measured, and whether that is enough."""
    cells = []
    for aim in aims:
        value = figures.get(aim.figure)
        if value is None:
            cells.append((aim.text, "–", "not measured"))
            continue
        met = value <= aim.limit if aim.most else value >= aim.limit
        cells.append((aim.text, rounded(value), "met" if met else "**missed**"))
    return markdown_table(("aim", "measured", ""), cells)


def rounded(value: float) -> str:
    """Two decimals, from a hundred on none; never −0."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{round(value, 2) + 0.0:.2f}"
