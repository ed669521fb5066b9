"""The microscope: which operator is the first whose result is another one in the other form of a model?

    report = microscope(trained, exported, dataset)
    print(report.says)
    print(report.table())

Parity says *that* two forms of a model disagree, and only of the outputs. Here every tensor in between is
compared. Each form is run once on the same samples with all its tensors kept (`taps`); tensors are paired by
name and by value (`match`); the first operator is searched whose inputs still agree and whose result does not
(`search`); and what kind of disagreement it is says where to look (`diagnose`).

Between float models "agree" means up to the rounding of sums taken in another order. Where one of the two is
quantized nothing is equal, and what is read is how much of each tensor is noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.convert.parity import _batches
from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.microscope.diagnose import Case, diagnose
from labkit.microscope.kinds import kind
from labkit.microscope.match import Matches
from labkit.microscope.report import Departure, MicroscopeReport, Row
from labkit.microscope.search import FLOAT, QUANTIZED, Side, first_front, groups
from labkit.microscope.taps import Tap, taps
from labkit.progress import Progress, silent
from labkit.variant import Array, Variant

_ENOUGH_ABOVE_DB = 20.0  # a counterpart so much better than asked for ends the search for a better one


@door
def microscope(
    reference: Variant,
    other: Variant,
    samples: Dataset | Mapping[str, Array] | None = None,
    batch_size: int = 3,
    progress: Progress | None = None,
) -> MicroscopeReport:
    """Compare every tensor of `other` with those of `reference` and name the first operator that departs.

    samples: a Dataset (its train split, prepared by each variant's own preprocessing), ready feeds (input
    name → [N, …]), or None for random ones. Both run in float32 with nothing fused, on one batch.
    Raises ParityError if they take another number of inputs, TechniqueError for a format without taps.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be 1 or more")
    report = progress or silent
    _, feeds, other_feeds = next(_batches(reference, other, samples, (batch_size,)))
    report(0.0, f"running {reference.name}")
    first = taps(reference, feeds)
    report(0.3, f"running {other.name}")
    second = taps(other, other_feeds)
    report(0.6, "matching tensors")
    scale = QUANTIZED if reference.quantized != other.quantized else FLOAT
    matches = Matches(first, second, scale.limit_db + _ENOUGH_ABOVE_DB)
    report(0.9, "looking for the first departure")
    sides = Side(matches, 0, scale), Side(matches, 1, scale)
    departure = _departure(*sides)
    report(1.0, "done")
    return MicroscopeReport(reference.name, other.name, scale, _rows(sides[0], departure), departure)


def _departure(reference: Side, other: Side) -> Departure | None:
    first, second = first_front(reference, other)
    if first is None:
        return None
    mine, theirs = groups(reference, first, other, second) if second is not None else ([first], [])
    change, left_out, put_in = "", _before(mine, theirs), _before(theirs, mine)
    if put_in:
        change, theirs = "put in", put_in
    elif left_out or not theirs:
        change, mine = "left out", left_out or mine
    return Departure(
        change=change,
        reference=() if change == "put in" else tuple(tap.plain for tap in mine),
        other=() if change == "left out" else tuple(tap.plain for tap in theirs),
        before_db=reference.before_db(first),
        finding=diagnose(Case(reference, other, mine, theirs, change)),
    )


def _before(these: Sequence[Tap], those: Sequence[Tap]) -> list[Tap]:
    """What `these` do before they begin with the kind of operator with which `those` begin at once."""
    kinds = [kind(tap) for tap in these]
    wanted = kind(those[0]) if those else ""
    return list(these[: kinds.index(wanted)]) if wanted in kinds else []


def _rows(reference: Side, departure: Departure | None) -> tuple[Row, ...]:
    named = {operator.name for operator in departure.reference} if departure else set()
    rows = []
    for tap in reference.taps.values():
        other, found = reference.counterpart(tap.name)
        if tap.name in named:
            status = "departs"
        elif tap.name in reference.good:
            status = "equal"
        elif tap.name in reference.recovered:
            status = "fused away" if other is None else "recovers"
        else:
            status = "after the departure" if departure else "no counterpart" if other is None else "drifts"
        known = other is not None
        rows.append(
            Row(
                tap.plain,
                other,
                found.snr_db if known else None,
                found.max_rel_error if known else None,
                status,
            )
        )
    return tuple(rows)
