"""Files that were made with different sparsities and levels: what each takes, and what it has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.errors import ConfigError
from labkit.plots import table_html
from labkit.statistics import Interval
from labkit.widgets.catalogue import text

TRY_COLUMNS = ("sparsity", "levels", "whose", "size_bytes", "accuracy_pct", "accuracy_drop_pp_ci95")


@dataclass(frozen=True)
class CodedPoint:
    """One file: how it was made, its bytes in groups, and what its network has lost to the float one.

    sparsity: 0..1; levels: of each layer's weights; groups: of `byte_groups`; drop_ci95: of drop_pp, paired, in points.
    """

    sparsity: float
    levels: int
    groups: Mapping[str, int]
    accuracy_pct: float
    drop_pp: float
    drop_ci95: Interval

    @property
    def size_bytes(self) -> int:
        """The bytes of the file."""
        return sum(self.groups.values())


def find_point(points: Sequence[CodedPoint], sparsity: float, levels: int) -> CodedPoint:
    """The point that was made so; ConfigError if none was."""
    for point in points:
        if (point.sparsity, point.levels) == (sparsity, levels):
            return point
    raise ConfigError(f"sparsity={sparsity}, levels={levels} is not among the {len(points)} recorded files")


def point_says(point: CodedPoint, float_bytes: int) -> str:
    """The point in a sentence."""
    low, high = point.drop_ci95
    return text(
        "coding.says",
        sparsity=point.sparsity,
        levels=point.levels,
        size=point.size_bytes,
        ratio=float_bytes / point.size_bytes,
        accuracy=point.accuracy_pct,
        drop=point.drop_pp,
        low=low,
        high=high,
    )


def points_table(points: Sequence[CodedPoint]) -> str:
    """An HTML table with TRY_COLUMNS of the recorded files."""
    return table_html([_row(point, text("game.recorded")) for point in points], TRY_COLUMNS)


def tries_table(tries: Sequence[CodedPoint], recorded: Sequence[CodedPoint]) -> str:
    """An HTML table with TRY_COLUMNS: each file that was made here, and what had been recorded of it."""
    rows = []
    for made in tries:
        beside = find_point(recorded, made.sparsity, made.levels)
        rows += [_row(made, text("coding.here")), _row(beside, text("game.recorded"))]
    return table_html(rows, TRY_COLUMNS)


def _row(point: CodedPoint, whose: str) -> dict[str, object]:
    return {
        "sparsity": f"{point.sparsity:.0%}",
        "levels": point.levels,
        "whose": whose,
        "size_bytes": point.size_bytes,
        "accuracy_pct": point.accuracy_pct,
        "accuracy_drop_pp_ci95": tuple(point.drop_ci95),
    }
