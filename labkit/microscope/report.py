"""What the microscope found: a row for each operator of the reference, and the first departure in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labkit.microscope.kinds import HINTS, kind
from labkit.microscope.match import Agreement
from labkit.microscope.search import Scale
from labkit.microscope.taps import Operator


@dataclass(frozen=True)
class Row:
    """One operator of the reference, and how its result compares with its `counterpart`, a tensor of the other.

    What the other put in has rows too, if it departs: what it comes to against what it reads. `snr_db` and
    `max_rel_error` (max |y′ − y| / max |y|) are None where there is nothing to compare. `status`: "equal" ·
    "fused away" (the other never writes it down, and nothing was lost) · "recovers" (it differs, and what is
    computed from it does not) · "departs" · "after the departure" · "drifts" (below the limit, with no
    operator to name) · "no counterpart".
    """

    operator: Operator
    counterpart: str | None
    snr_db: float | None
    max_rel_error: float | None
    status: str


@dataclass(frozen=True)
class Departure:
    """Where the two part: operators of the reference, and of the other, that do the same work differently.

    More than one stand on a side where formats fuse differently: these cannot be told apart from outside.
    `change` is "left out" (other is empty), "put in" (reference is empty) or "". `before_db` and `before_error`
    (its max_rel_error) are the agreement of what they read, `agreement` that of what they come to (None if
    there is nothing to compare), `finding` what kind of difference it is, if one of the known kinds fits.
    """

    change: str
    reference: tuple[Operator, ...]
    other: tuple[Operator, ...]
    before_db: float
    before_error: float
    agreement: Agreement | None
    finding: str

    @property
    def operator(self) -> Operator:
        """The one to look at first: of the reference, unless the other put it in."""
        return (self.reference or self.other)[0]

    @property
    def counterpart(self) -> Operator | None:
        """The operator of the other model that stands in its place; None if it was left out or put in."""
        return self.other[0] if self.reference and self.other else None


@dataclass(frozen=True)
class MicroscopeReport:
    """Every comparison that was made, in the reference's order of computation.

    `first` is the first departure; None if every tensor agrees within `scale`, or none departs by itself.
    """

    reference: str
    other: str
    scale: Scale
    rows: tuple[Row, ...]
    first: Departure | None

    @property
    def suspects(self) -> tuple[Operator, ...]:
        """All operators that the departure may lie in: of the reference, then of the other."""
        return (*self.first.reference, *self.first.other) if self.first else ()

    def names(self, node: str) -> bool:
        """Whether the operator to look at first has this name in its file, on either side."""
        found = (self.first.operator, self.first.counterpart) if self.first else ()
        return node in [operator.node for operator in found if operator is not None]

    @property
    def says(self) -> str:
        """The finding in a sentence or two, for a person."""
        if self.first is None:
            return self._nothing()
        first, one = self.first, self.first.operator
        before = f"what it reads agrees to {self._level(first.before_db, first.before_error)}"
        if first.change == "left out":
            head = f"{one.title} of {self.reference!r} is left out in {self.other!r}; {before}."
        elif first.change == "put in":
            head = (
                f"The first operator that departs is {one.title} of {self.other!r}, which {self.reference!r} does "
                f"not have; {before}."
            )
        else:
            head = f"The first operator that departs is {one.title}: {self._by_how_much()}, while {before}."
            head += self._together()
        look = HINTS.get(kind(one), "")
        advice = f" Look at {look}." if look and not first.change and not first.finding else ""
        return head + (f" {first.finding}" if first.finding else "") + advice

    def table(self) -> str:
        """The rows as text, one line each."""
        width = min(48, max((len(row.operator.title) for row in self.rows), default=8))
        lines = [f"{'operator':<{width}}  {'counterpart':<24} {'snr_db':>7} {'max_rel_error':>13}  status"]
        for row in self.rows:
            snr = "–" if row.snr_db is None else f"{row.snr_db:.1f}"
            error = "–" if row.max_rel_error is None else f"{row.max_rel_error:.2g}"
            title, other = _short(row.operator.title, width), _short(row.counterpart or "–", 24)
            lines.append(f"{title:<{width}}  {other:<24} {snr:>7} {error:>13}  {row.status}")
        return "\n".join(lines)

    def _nothing(self) -> str:
        known = [row for row in self.rows if row.snr_db is not None and row.status in ("equal", "drifts")]
        if not known:
            return f"No tensor of {self.reference!r} has a counterpart in {self.other!r}."
        worst = min(known, key=lambda row: row.snr_db or 0.0)
        level = self._level(worst.snr_db or 0.0, worst.max_rel_error or 0.0)
        if any(row.status == "drifts" for row in self.rows):
            return (
                f"No operator departs by itself: the agreement fades little by little, down to {level} at "
                f"{worst.operator.title}. That is rounding that adds up, and no fault of one operator."
            )
        return (
            f"Nothing departs: {len(known)} of {len(self.rows)} tensors of {self.reference!r} have their equal in "
            f"{self.other!r}, to {level}"
            + (f" or better (the worst is that of {worst.operator.title})" if worst.max_rel_error else "")
            + (", and the others were fused away." if len(known) < len(self.rows) else ".")
        )

    def _level(self, snr_db: float, max_rel_error: float) -> str:
        """An agreement in the words of the scale: of float numbers the largest error, else what is not noise."""
        if self.scale.name == "float":
            return f"{max_rel_error:.1g} of its scale" if max_rel_error else "the last bit"
        return f"{min(snr_db, self.scale.cap_db):.0f} dB"

    def _by_how_much(self) -> str:
        assert self.first is not None  # noqa: S101 - `says` has asked
        found = self.first.agreement
        if found is None or not found.max_rel_error < math.inf:
            return "nothing like its result is found"
        if self.scale.name == "float":
            return f"its result differs by {found.max_rel_error:.2g} of its scale"
        return f"its signal-to-noise ratio is {found.snr_db:.0f} dB"

    def _together(self) -> str:
        assert self.first is not None  # noqa: S101 - `says` has asked
        mine, theirs = self.first.reference, self.first.other
        if len(mine) == len(theirs) == 1:
            return "" if mine[0].title == theirs[0].title else f" Its counterpart is {theirs[0].title}."
        a, b = (" and ".join(operator.title for operator in side) for side in (mine, theirs))
        return f" {a} in the one and {b} in the other do this work together and cannot be told apart."


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
