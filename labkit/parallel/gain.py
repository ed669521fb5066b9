"""What a second worker really gains here: a stream of batches through one worker and through two, interleaved.

The pool is measured as any other session: same samples, same checks, same paired blocks. On a machine with one CPU
the honest answer is about 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.data import Dataset
from labkit.measure import Candidate, Protocol, Records, compare, measure
from labkit.parallel.pool import WorkerPool
from labkit.progress import Progress, silent
from labkit.runtimes import Session
from labkit.statistics import Interval
from labkit.variant import Array

BATCHES_IN_A_RUN = 16
"""How many batches one timed run streams, so that filling and emptying the pool weigh little."""


class PoolSession(Session):
    """A WorkerPool behind the Session interface: splits its feeds into batches of `batch_size`, joins the answers."""

    def __init__(self, candidate: Candidate, batch_size: int) -> None:
        super().__init__(candidate.variant, candidate.options)
        self._batch_size = batch_size
        self._pool = WorkerPool(
            candidate.variant, candidate.runtime, candidate.num_workers, candidate.options
        )

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every batch through the pool, in order."""
        count = len(next(iter(feeds.values())))
        parts = [
            {name: array[start : start + self._batch_size] for name, array in feeds.items()}
            for start in range(0, count, self._batch_size)
        ]
        outputs = list(self._pool.map(parts))
        return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()


@dataclass(frozen=True)
class PoolGain:
    """Throughput of `num_workers` workers over that of one, at batches of `batch_size`, with its 95 % interval."""

    batch_size: int
    num_workers: int
    speedup: float
    speedup_ci95: Interval
    records: Records

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        one, many = self.records.measurements
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "speedup": self.speedup,
            "speedup_ci95": list(self.speedup_ci95),
            "one_worker_samples_per_s": one.throughput_samples_per_s,
            "workers_samples_per_s": many.throughput_samples_per_s,
        }


def pool_gain(
    candidate: Candidate,
    dataset: Dataset,
    num_workers: int = 2,
    seed: int = 0,
    progress: Progress = silent,
    protocol: Protocol | None = None,
) -> PoolGain | None:
    """Measure `candidate` as a stream through one worker and through `num_workers`, each with its own threads.

    None for a model whose batch size is frozen in its file.
    """
    if candidate.variant.fixed_batch:
        return None
    variant, batch = candidate.variant, candidate.batch_size
    run_size = batch * BATCHES_IN_A_RUN
    settings = (candidate.runtime, run_size, candidate.threads, candidate.precision)
    one, many = (Candidate(variant, *settings, num_workers=count) for count in (1, num_workers))
    records = measure(
        [many],
        dataset,
        against=one,
        protocol=protocol,
        seed=seed,
        progress=progress,
        open_session=lambda each: PoolSession(each, batch),
    )
    pair = compare(records).pairs[0]
    assert pair.speedup is not None and pair.speedup_ci95 is not None  # noqa: S101 - paired runs have both
    return PoolGain(batch, num_workers, pair.speedup, pair.speedup_ci95, records)
