"""An assignment of bits to layers, added up: the mixed game's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from labkit.errors import ConfigError
from labkit.plots import table_html
from labkit.quantize.noise import snr_db
from labkit.quantize.sensitivity import Choice
from labkit.widgets.catalogue import text
from labkit.widgets.game import Tried, tries_view

Assignment = Mapping[str, int]
LAYER_COLUMNS = ("weight", "bits", "weight_bytes", "noise", "snr_db", "share_of_noise")
POINT_COLUMNS = (
    "variant",
    "whose",
    "budget",
    "predicted_snr_db",
    "size_bytes",
    "accuracy_drop_pp",
    "accuracy_drop_pp_ci95",
)


class Measured(Tried, Protocol):
    """A measured model: a `labkit.quantize.mixed.Point`, or whatever was recorded of one."""

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""


@dataclass(frozen=True)
class Tally:
    """What an assignment comes to: each layer's Choice, of all `choices`, and the two sums against the budget."""

    layers: tuple[Choice, ...]
    choices: tuple[Choice, ...]
    budget_bytes: int

    @property
    def weight_bytes(self) -> int:
        """The bytes of all weights."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def noise(self) -> float:
        """The noise to expect, as a share of the outputs' power: errors of layers are nearly independent."""
        return sum(layer.noise for layer in self.layers)

    @property
    def over_bytes(self) -> int:
        """How far it is over the budget; 0 or less is within it."""
        return self.weight_bytes - self.budget_bytes

    @property
    def says(self) -> str:
        """Bytes against the budget, and the noise, in one sentence."""
        return text(
            "mixed.over" if self.over_bytes > 0 else "mixed.within",
            weight_bytes=self.weight_bytes,
            budget_bytes=self.budget_bytes,
            difference=abs(self.over_bytes),
            snr_db=snr_db(1.0, self.noise),
        )


def tally(choices: Sequence[Choice], assignment: Assignment, budget_bytes: int) -> Tally:
    """Add up the choices that an assignment (weight → bits) takes.

    Raises ConfigError for a layer that has no bits, or bits that were not measured.
    """
    offered: dict[str, dict[int, Choice]] = {}
    for choice in choices:
        offered.setdefault(choice.weight, {})[choice.bits] = choice
    for weight, of_layer in offered.items():
        if assignment.get(weight) not in of_layer:
            allowed = ", ".join(map(str, of_layer))
            raise ConfigError(
                f"assignment[{weight!r}]={assignment.get(weight)!r}; measured were {allowed} bits"
            )
    layers = tuple(of_layer[assignment[weight]] for weight, of_layer in offered.items())
    return Tally(layers, tuple(choices), budget_bytes)


def assignment_table(total: Tally) -> str:
    """An HTML table with LAYER_COLUMNS: each layer, and all together."""
    rows: list[dict[str, Any]] = [{**vars(each), "snr_db": each.snr_db} for each in total.layers]
    for row in rows:
        row["share_of_noise"] = f"{row['noise'] / total.noise if total.noise else 0.0:.1%}"
    whole = {"weight_bytes": total.weight_bytes, "noise": total.noise, "snr_db": snr_db(1.0, total.noise)}
    return table_html([*rows, {"weight": text("grid.all"), **whole}], LAYER_COLUMNS)


def points_view(
    choices: Sequence[Choice], budget_bytes: int, recorded: Sequence[Measured], tries: Sequence[Measured]
) -> tuple[Any, str]:
    """Size against drop of the `recorded` models and of one's own `tries`, the last of them ringed; and a table."""

    def figures(point: Measured) -> dict[str, Any]:
        total = tally(choices, point.assignment, budget_bytes)
        over = total.over_bytes
        return {
            "budget": text("mixed.row.over" if over > 0 else "mixed.row.within", bytes=over),
            "predicted_snr_db": snr_db(1.0, total.noise),
            "size_bytes": point.size_bytes,
        }

    return tries_view(recorded, tries, figures, "size_bytes", POINT_COLUMNS)
