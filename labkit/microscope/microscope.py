"""The microscope: which operator is the first whose result is another one in the other form of a model?

    report = microscope(trained, exported, dataset)
    print(report.says)
    print(report.table())

Parity says *that* two forms of a model disagree, and only of the outputs. Here every tensor in between is
compared. Each form is run once on the same samples with all its tensors kept (`taps`); tensors are paired by
name and by value (`match`); the first operator is searched whose inputs still agree and whose result does not
(`search`); and what kind of disagreement it is says where to look (`diagnose`).

Between float models "agree" means up to the rounding of sums taken in another order. Where one of the two is
quantized, or two engines round to integers each in its own order, nothing is equal: what is read then is how
much of each tensor is noise.
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit.convert.parity import samples_in_batches
from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.microscope.diagnose import diagnose, results
from labkit.microscope.front import stretches
from labkit.microscope.match import Agreement, Matches, agreement
from labkit.microscope.report import Departure, MicroscopeReport, Row
from labkit.microscope.search import FLOAT, QUANTIZED, Side, first_front
from labkit.microscope.taps import Operator, taps
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
    _, feeds, other_feeds = next(samples_in_batches(reference, other, samples, (batch_size,)))
    report(0.0, f"running {reference.name}")
    first = taps(reference, feeds)
    report(0.3, f"running {other.name}")
    second = taps(other, other_feeds)
    report(0.6, "matching tensors")
    exact = reference.quantized == other.quantized and (
        not other.quantized or reference.format == other.format
    )
    scale = FLOAT if exact else QUANTIZED
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
    front = stretches(reference, first, other, second)
    ends = results(other, front) if front.theirs else ()
    comparable = len({each.size for each in ends}) == 1
    return Departure(
        change=front.change,
        reference=tuple(tap.plain for tap in front.mine),
        other=tuple(tap.plain for tap in front.theirs),
        before_db=reference.before_db(first),
        before_error=reference.before_error(first),
        agreement=agreement(*ends) if comparable else None,
        finding=diagnose(reference, other, front),
    )


def _rows(reference: Side, departure: Departure | None) -> tuple[Row, ...]:
    """A row for each operator of the reference; what the other put in stands where it does its work."""
    named = {operator.name for operator in departure.reference} if departure else set()
    put_in = departure.other if departure and departure.change == "put in" else ()
    rows: list[Row] = []
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
            if departure and put_in:
                rows += [_row(operator, None, departure.agreement, "departs") for operator in put_in]
                put_in = ()
        rows.append(_row(tap.plain, other, found if other is not None else None, status))
    return tuple(rows)


def _row(operator: Operator, counterpart: str | None, found: Agreement | None, status: str) -> Row:
    snr_db, error = (found.snr_db, found.max_rel_error) if found else (None, None)
    return Row(operator, counterpart, snr_db, error, status)
