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
import math
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.measure.candidate import Candidate
from labkit.measure.figures import make_records
from labkit.measure.lock import DEFAULT_TIMEOUT_S, Patience
from labkit.measure.records import Records
from labkit.measure.run import Opener, Run, open_session, session_key
from labkit.progress import Progress, part

FEWEST_PAIRED_BLOCKS = 10
_MOST_INTERLEAVED = 16

_RANGES: dict[str, tuple[type, float, float]] = {
    "blocks": (int, 2, 1000),
    "block_ms": (float, 0.01, 60_000.0),
    "warmup_ms": (float, 0.0, 60_000.0),
    "min_runs_per_block": (int, 1, 10_000),
    "max_runs_per_block": (int, 1, 10_000),
    "lock_timeout_s": (float, 0.0, 3600.0),
}


@dataclass(frozen=True)
class Protocol:
    """How long to measure. A block holds as many runs as fill `block_ms`, within the least and most allowed.

    The defaults support p95 (12 blocks of 5 runs are 60; 59 are needed) and an interval on a ratio; p99 needs
    299 runs, so 25 a block. `lock_timeout_s` is how long to wait for the machine before going on regardless.
    Raises ConfigError if a field is out of range.
    """

    blocks: int = 12
    block_ms: float = 30.0
    warmup_ms: float = 60.0
    min_runs_per_block: int = 5
    max_runs_per_block: int = 1000
    lock_timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _RANGES.items():
            value = getattr(self, name)
            if type(value) not in (kind, int) or not low <= value <= high:
                number = "a whole number" if kind is int else "a number"
                raise ConfigError(
                    f"Protocol.{name}={value!r} must be {number} in {low:g} ≤ {name} ≤ {high:g}"
                )
        if self.max_runs_per_block < self.min_runs_per_block:
            raise ConfigError(
                f"Protocol.max_runs_per_block={self.max_runs_per_block} must be at least "
                f"min_runs_per_block={self.min_runs_per_block}"
            )

    @classmethod
    def paired(cls) -> Protocol:
        """For a comparison that is to be believed: the defaults."""
        return cls()

    @classmethod
    def brief(cls) -> Protocol:
        """The least from which a ratio is given an interval: ten short blocks. For tests and first looks."""
        return cls(blocks=FEWEST_PAIRED_BLOCKS, block_ms=5.0, warmup_ms=10.0, min_runs_per_block=1)

    @classmethod
    def quick(cls) -> Protocol:
        """For screening many candidates, to see which deserve a comparison."""
        return cls(blocks=4, block_ms=15.0, warmup_ms=20.0, min_runs_per_block=2)

    def runs_per_block(self, run_ms: float) -> int:
        """How many runs of `run_ms` fill a block."""
        filling = math.ceil(self.block_ms / max(run_ms, 1e-6))
        return min(max(filling, self.min_runs_per_block), self.max_runs_per_block)


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
