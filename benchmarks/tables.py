"""What generated pages have in common: tables, what was not measured, a section for each part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Sections = Mapping[str, Callable[[list[Row]], list[str]]]
"""Part of a benchmark → what is told of its rows."""


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


def not_measured(document: Mapping[str, Any]) -> list[str]:
    """The figures that are missing, each with its reason; nothing where none is."""
    reasons = [f"- `{key}`: {why}" for key, why in document["null_reasons"].items()]
    return ["\n".join(["Not measured:", "", *reasons])] if reasons else []


def machine(environment: Mapping[str, Any]) -> str:
    """The machine in one line."""
    features = ", ".join(environment["cpu_features"])
    return f"{environment['cpu_model']}, {environment['threads']} threads ({features}), Python {environment['python']}"


def elsewhere(document: Mapping[str, Any]) -> list[str]:
    """The parts that another machine measured than the rest, each with that machine; nothing where none is."""
    lines = [
        f"- {name.replace('_', ' ')}: on {machine(stamp['environment'])}"
        for name, stamp in document.get("parts", {}).items()
        if "environment" in stamp
    ]
    return (
        ["\n".join(["All but these parts, each of which compares within itself:", "", *lines])]
        if lines
        else []
    )


def parts_table(document: Mapping[str, Any]) -> str:
    """When each part was measured, and how long it took."""
    told = [
        (name.replace("_", " "), stamp["measured"], f"{stamp['seconds']:,.0f}")
        for name, stamp in document["parts"].items()
    ]
    return markdown_table(("part", "measured at", "in s, without training that was kept"), told)


def told(sections: Sections, document: Mapping[str, Any]) -> list[str]:
    """The sections of all parts that were measured."""
    lines = []
    for part, section in sections.items():
        rows = [row for row in document["table"] if row["part"] == part]
        if rows:
            lines += section(rows)
    return lines
