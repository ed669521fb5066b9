"""Parity: do two forms of one model compute the same numbers?

Converting changes how a function is written down, not the function: f and θ stay, so y must stay. Sums are
taken in another order, so the last bits may differ, and no more than those. It is checked at three batch
sizes, because an export that froze its batch is right at one of them and wrong, or broken, at the others.

    parity(trained, exported, dataset).check(tolerance("float32"))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError, ParityError, TensorError, nearest
from labkit.runtimes import RunOptions, Runtime, Session, reference_runtime
from labkit.task import Classification, get_task
from labkit.technique import probe
from labkit.variant import Array, Variant

BATCHES = (1, 3, 7)
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "int8": 0.25}


def tolerance(precision: str) -> float:
    """The largest `max_rel_error` that rounding alone explains: many times the precision's last bit."""
    if precision not in _TOLERANCES:
        raise ConfigError(f"no tolerance is known for {precision!r}; {nearest(precision, _TOLERANCES)}")
    return _TOLERANCES[precision]


@dataclass(frozen=True)
class ParityRow:
    """One output at one batch size.

    max_abs_error is max |y' − y|; max_rel_error divides it by max |y|, the output's own scale, because a
    relative error of each element means nothing where y is close to 0. top1_agreement is the share of samples
    whose largest logit stays the largest; None where outputs are not logits.
    """

    batch_size: int
    output: str
    max_abs_error: float
    max_rel_error: float
    top1_agreement: float | None


@dataclass(frozen=True)
class ParityReport:
    """Every comparison made between `reference` and `other`."""

    reference: str
    other: str
    reference_format: str
    other_format: str
    rows: tuple[ParityRow, ...]

    @property
    def max_abs_error(self) -> float:
        """The largest of all rows."""
        return max(row.max_abs_error for row in self.rows)

    @property
    def max_rel_error(self) -> float:
        """The largest of all rows: what is held against the tolerance."""
        return max(row.max_rel_error for row in self.rows)

    @property
    def top1_agreement(self) -> float | None:
        """The smallest of all rows; None where outputs are not logits."""
        return min((row.top1_agreement for row in self.rows if row.top1_agreement is not None), default=None)

    def table(self) -> str:
        """The rows as text, one line each."""
        lines = [
            f"{'batch':>5}  {'output':<12} {'max_abs_error':>13} {'max_rel_error':>13} {'top1_agreement':>14}"
        ]
        for row in self.rows:
            top1 = "–" if row.top1_agreement is None else f"{row.top1_agreement:.1%}"
            errors = f"{row.max_abs_error:>13.3g} {row.max_rel_error:>13.3g}"
            lines.append(f"{row.batch_size:>5}  {row.output:<12} {errors} {top1:>14}")
        return "\n".join(lines)

    @door
    def check(self, tolerance: float) -> ParityReport:
        """Return this report, or raise ParityError with the table if `max_rel_error` exceeds `tolerance`."""
        if not self.max_rel_error <= tolerance:  # so that a NaN fails
            rows = " | ".join(self.table().splitlines())
            raise ParityError(
                f"{self.other!r} does not compute what {self.reference!r} computes: max_rel_error "
                f"{self.max_rel_error:.3g} exceeds the tolerance {tolerance:.3g}. {rows}"
            )
        return self


@door
def parity(
    reference: Variant,
    other: Variant,
    samples: Dataset | Mapping[str, Array] | None = None,
    batches: Sequence[int] = BATCHES,
    runtime: Runtime | None = None,
    options: RunOptions | None = None,
) -> ParityReport:
    """Run both on the same samples and compare all outputs, position by position.

    samples: a Dataset (its train split, prepared by each variant's own preprocessing), ready feeds (input
    name → [N, …]), or None for `probe`'s random ones. `reference` runs in its format's reference runtime,
    `other` in `runtime` with `options`. A model with a fixed batch is compared at that one.
    Raises ParityError if the outputs differ in number or shape.
    """
    if not batches or min(batches) < 1:
        raise ConfigError(f"batches={list(batches)} must hold at least one size, each 1 or more")
    rows: list[ParityRow] = []
    with (
        reference_runtime(reference).load(reference) as first,
        (runtime or reference_runtime(other)).load(other, options) as second,
    ):
        for size, feeds, other_feeds in samples_in_batches(reference, other, samples, batches):
            rows += _compare(reference, size, _run(first, feeds), _run(second, other_feeds))
    return ParityReport(reference.name, other.name, reference.format, other.format, tuple(rows))


def samples_in_batches(
    reference: Variant, other: Variant, samples: Dataset | Mapping[str, Array] | None, batches: Sequence[int]
) -> Iterator[tuple[int, dict[str, Array], dict[str, Array]]]:
    """(batch size, feeds of the reference, feeds of the other); every batch takes other samples."""
    fixed = {variant.fixed_batch for variant in (reference, other)} - {None}
    sizes = sorted(size for size in fixed if size is not None) or list(batches)
    start = 0
    for size in sizes:
        if samples is None:
            feeds = probe(reference, size, seed=start)
            yield size, feeds, _renamed(reference, other, feeds)
        elif isinstance(samples, Dataset):
            train = samples.split("train")
            stored = train.take(np.arange(start, start + size) % len(train)).inputs
            feeds = reference.feeds(stored)
            yield size, feeds, other.feeds(stored)
        else:
            feeds = {name: array[start : start + size] for name, array in samples.items()}
            reference.check_feeds(feeds)
            yield size, feeds, _renamed(reference, other, feeds)
        start += size


def _run(session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return session.run(feeds)
    except TensorError as error:
        if error.__cause__ is None:  # the samples do not fit; else the engine cannot take this batch
            raise
        size = len(next(iter(feeds.values())))
        raise ParityError(f"{session.variant.name!r} fails at batch {size}: {error}") from None


def _renamed(reference: Variant, other: Variant, feeds: Mapping[str, Array]) -> dict[str, Array]:
    if len(reference.inputs) != len(other.inputs):
        raise ParityError(
            f"{reference.name!r} takes {len(reference.inputs)} inputs, {other.name!r} takes {len(other.inputs)}"
        )
    return {b.name: feeds[a.name] for a, b in zip(reference.inputs, other.inputs, strict=True)}


def _compare(
    reference: Variant, size: int, expected: Mapping[str, Array], found: Mapping[str, Array]
) -> list[ParityRow]:
    if len(expected) != len(found):
        raise ParityError(f"{reference.name!r} has {len(expected)} outputs, the other has {len(found)}")
    logits = reference.outputs[0].name if isinstance(get_task(reference.task), Classification) else None
    rows = []
    for (name, y), z in zip(expected.items(), found.values(), strict=True):
        if y.shape != z.shape:
            raise ParityError(f"at batch {size} output {name!r} has shape {y.shape}, in the other {z.shape}")
        error = float(np.max(np.abs(z.astype(np.float64) - y)))
        largest = float(np.max(np.abs(y)))
        relative = error / largest if largest > 0 else error
        top1 = float(np.mean(y.argmax(axis=-1) == z.argmax(axis=-1))) if name == logits else None
        rows.append(ParityRow(size, name, error, relative, top1))
    return rows
