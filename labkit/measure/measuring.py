"""`measure`: candidates in, records out.

What is done, in this order:

    open      each session once, shared by its batch sizes; loading and the first run are timed
    watch     a few real batches, whose answers are checked and kept
    score     every sample of the split once; no clock runs
    time      interleaved blocks over those batches (timing.py); the answers must be the ones that were kept
    suspect   inputs that the session never saw must take as long as those it knows (honesty.py)

With a baseline (`against`) all sessions are open at once and take turns, and ratios mean something. Without
one they are opened one after the other, which needs the memory of one: good for screening, not for claims.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.measure.candidate import Candidate
from labkit.measure.figures import make_records
from labkit.measure.lock import Patience
from labkit.measure.protocol import FEWEST_PAIRED_BLOCKS, Protocol
from labkit.measure.records import Records
from labkit.measure.run import Opener, Run, open_session, session_key
from labkit.progress import Progress, part

_MOST_INTERLEAVED = 16


@door
def measure(
    candidates: Sequence[Candidate],
    dataset: Dataset,
    *,
    against: Candidate | None = None,
    split: str = "validation",
    protocol: Protocol | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    n_samples: int | None = None,
    with_memory: bool = False,
    open_session: Opener = open_session,
) -> Records:
    """Measure the quality and the speed of every candidate, on the first `n_samples` of a split, or all.

    With `against`, that baseline and all candidates are interleaved, by Protocol.paired() unless told
    otherwise; without, they run one after the other, by Protocol.quick(). `with_memory` starts a fresh
    process for each candidate. `progress` is called between blocks; if it raises Cancelled, every session is
    closed.
    Raises ConfigError for candidates that cannot be measured together, MeasurementError for an answer that is
    not finite, changes under the clock, or comes from a memory.
    """
    if seed < 0:
        raise ConfigError(f"seed={seed} must be 0 or more")
    everything = _distinct([*([against] if against else []), *candidates])
    protocol = protocol or (Protocol.paired() if against else Protocol.quick())
    _check_request(everything, dataset, against, protocol)
    run = Run(
        _first_samples(dataset, split, n_samples),
        split,
        protocol,
        seed,
        open_session,
        Patience(protocol.lock_timeout_s),
    )
    groups = [everything] if against else _by_session(everything)
    for index, group in enumerate(groups):
        run.measure(group, part(progress, 0.9 * index / len(groups), 0.9 * (index + 1) / len(groups)))
    return make_records(run, everything, against, with_memory, part(progress, 0.9, 1.0))


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without repetition; ConfigError if two different models go by one name."""
    by_key: dict[str, Candidate] = {}
    for candidate in candidates:
        first = by_key.setdefault(candidate.key, candidate)
        if first.variant.digest != candidate.variant.digest:
            raise ConfigError(
                f"two different variants are both called {candidate.variant.name!r}: rename one"
            )
    return list(by_key.values())


def _check_request(
    candidates: Sequence[Candidate], dataset: Dataset, against: Candidate | None, protocol: Protocol
) -> None:
    if not candidates:
        raise ConfigError("candidates=[] holds nothing to measure: pass at least one Candidate")
    for candidate in candidates:
        if candidate.variant.task != dataset.task_name:
            raise ConfigError(
                f"{candidate.variant.name!r} does {candidate.variant.task}, dataset {dataset.name!r} is for "
                f"{dataset.task_name}"
            )
    if against and protocol.blocks < FEWEST_PAIRED_BLOCKS:
        raise ConfigError(
            f"Protocol.blocks={protocol.blocks} is too few to compare with a baseline; "
            f"{FEWEST_PAIRED_BLOCKS} or more: use Protocol.paired() or Protocol.brief()"
        )
    if against and len(candidates) > _MOST_INTERLEAVED:
        raise ConfigError(
            f"{len(candidates)} candidates cannot all be open at once, at most {_MOST_INTERLEAVED}: "
            "screen them without `against` first, then compare the best"
        )


def _first_samples(dataset: Dataset, split: str, n_samples: int | None) -> Dataset:
    samples = dataset.split(split)
    if n_samples is None:
        return dataset
    if type(n_samples) is not int or not 1 <= n_samples <= len(samples):
        raise ConfigError(
            f"n_samples={n_samples!r} must be a whole number 1..{len(samples)}, the size of {split}"
        )
    return dataclasses.replace(dataset, splits={**dataset.splits, split: samples.take(slice(0, n_samples))})


def _by_session(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Those that can share a session, together."""
    groups: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(session_key(candidate), []).append(candidate)
    return list(groups.values())
