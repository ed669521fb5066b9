"""What every layer lost at one sparsity, by each criterion: the sensitivity explorer's figures, said and tabled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.errors import ConfigError, DataError
from labkit.plots import table_html
from labkit.prune.sensitivity import LayerPruned
from labkit.widgets.catalogue import text

Curves = Mapping[str, Sequence[LayerPruned]]
"""Criterion → the rows of `scan_layers`."""

ORDERS = {"magnitude": "sensitivity.order.magnitude", "random": "sensitivity.order.random"}
"""Criterion → how it is said which weights go first."""

_UNHARMED_PP = 1.0


@dataclass(frozen=True)
class LayerCurves:
    """One layer: criterion → sparsity → its row. All criteria have the same sparsities."""

    layer: str
    weights: int
    curves: Mapping[str, Mapping[float, LayerPruned]]

    def lost_pp(self, criterion: str, sparsity: float) -> float:
        """Points that the network loses with this layer alone pruned."""
        return 100 * self.curves[criterion][sparsity].drop


def curves_of(scans: Curves) -> list[LayerCurves]:
    """The rows of `scan_layers`, by layer.

    Raises DataError where there are none, the scans differ in what they scanned, or one is by an unknown criterion.
    """
    if not scans or not all(scans.values()):
        raise DataError("nothing was scanned: give at least one criterion with the rows of scan_layers")
    if unknown := set(scans) - set(ORDERS):
        raise DataError(
            f"{min(unknown)!r} is no criterion that layers are scanned by; {', '.join(ORDERS)} are"
        )
    scanned = {tuple((row.layer, row.sparsity) for row in rows) for rows in scans.values()}
    if len(scanned) > 1:
        raise DataError("the scans are not of the same layers and sparsities: scan all criteria alike")
    found: dict[str, dict[str, dict[float, LayerPruned]]] = {}
    weights: dict[str, int] = {}
    for criterion, rows in scans.items():
        for row in rows:
            found.setdefault(row.layer, {}).setdefault(criterion, {})[row.sparsity] = row
            weights[row.layer] = row.weights
    return [LayerCurves(layer, weights[layer], curves) for layer, curves in found.items()]


def sparsities_of(layers: Sequence[LayerCurves]) -> tuple[float, ...]:
    """What was scanned, in rising order."""
    return tuple(sorted(next(iter(layers[0].curves.values()))))


def sensitivity_says(layers: Sequence[LayerCurves], sparsity: float, criterion: str) -> str:
    """Who loses most at this sparsity, and how much hardly loses anything, in one sentence."""
    check_scanned(layers, sparsity, criterion)
    lost = {each.layer: each.lost_pp(criterion, sparsity) for each in layers}
    worst = max(lost, key=lambda layer: lost[layer])
    unharmed = [each for each in layers if lost[each.layer] <= _UNHARMED_PP]
    return text(
        "sensitivity.says",
        sparsity=sparsity,
        order=text(ORDERS[criterion]),
        worst=worst,
        lost_pp=lost[worst],
        unharmed=len(unharmed),
        layers=len(layers),
        share=sum(each.weights for each in unharmed) / sum(each.weights for each in layers),
    )


def sensitivity_table(layers: Sequence[LayerCurves], sparsity: float) -> str:
    """An HTML table: every layer, its weights, and what it loses by each criterion, with the intervals."""
    criteria = tuple(layers[0].curves)
    check_scanned(layers, sparsity, criteria[0])
    rows: list[dict[str, Any]] = []
    for each in layers:
        row: dict[str, Any] = {"layer": each.layer, "weights": each.weights}
        for name in criteria:
            low, high = each.curves[name][sparsity].drop_ci95
            row[f"{name}: points lost"] = each.lost_pp(name, sparsity)
            row[f"{name}: ci95"] = (100 * low, 100 * high)
        rows.append(row)
    return table_html(rows, list(rows[0]))


def check_scanned(layers: Sequence[LayerCurves], sparsity: float, criterion: str) -> None:
    """ConfigError for a sparsity or a criterion that was not scanned."""
    if criterion not in layers[0].curves:
        raise ConfigError(f"criterion={criterion!r} was not scanned: {', '.join(layers[0].curves)} were")
    if sparsity not in layers[0].curves[criterion]:
        scanned = ", ".join(f"{each:g}" for each in sparsities_of(layers))
        raise ConfigError(f"sparsity={sparsity!r} was not scanned: {scanned} were")
