"""The ticket explorer: step through the rounds, and see ticket and control part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from labkit.technique import check_knobs, knob
from labkit.widgets.catalogue import text
from labkit.widgets.explorer import Explorer, Shown
from labkit.widgets.form import Form
from labkit.widgets.ticket_drawing import draw_tickets
from labkit.widgets.ticket_rows import TicketRun, rounds_of, tickets_say, tickets_table


class TicketExplorer(Explorer):
    """A round to move; every run was trained before.

    TicketExplorer(load_pruning().tickets, round=7)

    `start` gives the control another first value. Raises DataError for runs without the whole network.
    """

    name = "tickets"

    def __init__(self, runs: Sequence[TicketRun], **start: Any) -> None:
        self.rounds = rounds_of(runs)
        super().__init__(Form(_settings(self.rounds[-1].number), **start))

    def look(self, config: Any) -> Shown:
        """The chosen round, drawn, said and tabled."""
        code = f"draw_tickets(rounds_of(tickets), {config.round})"
        return Shown(
            draw_tickets(self.rounds, config.round),
            tickets_say(self.rounds, config.round),
            tickets_table(self.rounds),
            code,
        )


def _settings(last: int) -> type[Any]:
    fields = [("round", int, knob(0, text("tickets.round"), min=0, max=last))]
    namespace = {"__post_init__": check_knobs}
    return dataclasses.make_dataclass("TicketSettings", fields, frozen=True, namespace=namespace)
