"""Lottery tickets and their controls over several seeds: medians for each round, said and tabled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from labkit.errors import ConfigError, DataError
from labkit.plots import table_html
from labkit.widgets.catalogue import text

_COLUMNS = ("round", "kept", "ticket_pct", "control_pct", "ticket_first_epoch_pct", "control_first_epoch_pct")


class TicketRun(Protocol):
    """One round of one seed, as `labkit.teach.pruning_recording.RecordedTicket`."""

    @property
    def round(self) -> int:
        """0 is the whole network."""

    @property
    def kept(self) -> float:
        """The share of the weights."""

    @property
    def ticket(self) -> Sequence[float]:
        """The accuracy after each epoch."""

    @property
    def control(self) -> Sequence[float]:
        """The same for newly drawn weights; empty where there was no control."""


@dataclass(frozen=True)
class TicketRound:
    """All seeds of one round: the accuracies in % after each epoch, [seeds][epochs]; `controls` may be empty."""

    number: int
    kept: float
    tickets: tuple[tuple[float, ...], ...]
    controls: tuple[tuple[float, ...], ...]


def rounds_of(runs: Sequence[TicketRun]) -> list[TicketRound]:
    """The runs by round, in rising order; DataError if there are none, or the whole network is not among them."""
    if not any(run.round == 0 for run in runs):
        raise DataError("no run of round 0, the whole network: nothing to hold the tickets against")
    found = []
    for number in sorted({run.round for run in runs}):
        mine = [run for run in runs if run.round == number]
        curves = [
            tuple(tuple(100 * each for each in curve) for curve in kind if curve)
            for kind in ([run.ticket for run in mine], [run.control for run in mine])
        ]
        found.append(TicketRound(number, mine[0].kept, *curves))
    return found


def middle(curves: Sequence[Sequence[float]], epoch: int = -1) -> float | None:
    """The median over the seeds after an epoch, by default the last; None where there are none."""
    return median(curve[epoch] for curve in curves) if curves else None


def round_at(rounds: Sequence[TicketRound], number: int) -> TicketRound:
    """The round of this number; ConfigError if there is none."""
    for each in rounds:
        if each.number == number:
            return each
    raise ConfigError(f"round={number} was not drawn: rounds {rounds[0].number} to {rounds[-1].number} were")


def tickets_say(rounds: Sequence[TicketRound], number: int) -> str:
    """How ticket and control of a round compare, in one sentence."""
    chosen = round_at(rounds, number)
    words = {"kept": chosen.kept, "seeds": len(chosen.tickets), "ticket": middle(chosen.tickets)}
    if not chosen.controls:
        return text("tickets.whole", **words)
    return text(
        "tickets.says",
        **words,
        control=middle(chosen.controls),
        whole=middle(rounds[0].tickets),
        ticket_first=middle(chosen.tickets, 0),
        control_first=middle(chosen.controls, 0),
    )


def tickets_table(rounds: Sequence[TicketRound]) -> str:
    """An HTML table of the medians of every round."""
    rows: list[dict[str, Any]] = [
        {
            "round": each.number,
            "kept": f"{each.kept:.1%}",
            "ticket_pct": middle(each.tickets),
            "control_pct": middle(each.controls),
            "ticket_first_epoch_pct": middle(each.tickets, 0),
            "control_first_epoch_pct": middle(each.controls, 0),
        }
        for each in rounds
    ]
    return table_html(rows, _COLUMNS)
