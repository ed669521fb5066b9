"""The timed loop: whatever is a Session is timed here, and nowhere else.

Two things are compared by taking turns. A *round* times every session once, in a random order, for one
*block* of several runs; a dozen rounds later each has a dozen block times, and block i of one pairs with
block i of the other. Whatever slowed the machine during a round slowed them all and cancels in the ratio.

A block's time is the median of its runs: one interruption moves the mean of a whole block. How often the
interval then holds a ratio that is known, and how wide it is by either, `benchmarks/measurer.py` measures.
The block's first run is not counted: it fetches the model back into caches that the others have just filled.

What the median cannot mend is a machine that is busy all the time, where a long run is always interrupted and
a short one hardly ever. So the share of a core that we were given is kept (`cpu_share`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.measure import lock
from labkit.measure.protocol import Protocol
from labkit.progress import Progress, silent
from labkit.runtimes import Session
from labkit.variant import Array

Feeds = Mapping[str, Array]
Outputs = Mapping[str, Array]
Times = NDArray[np.float64]


def accept(last: Mapping[int, Outputs]) -> None:
    """The check that checks nothing."""


@dataclass(frozen=True)
class Timed:
    """A session and the batches to feed it in turn; several, so that a remembered answer is a wrong one.

    `check` is called after each block with the last outputs by the batch's index, and raises MeasurementError
    where they are not what the session answered when it was watched.
    """

    session: Session
    batches: Sequence[Feeds]
    check: Callable[[Mapping[int, Outputs]], None] = accept


@dataclass(frozen=True, eq=False)
class Timing:
    """What the clock said: block_ms [blocks], each block's median run, and run_ms [blocks × runs], every run.

    `warmup_runs` were discarded: those before the first block, and the first of every block.
    `lock_held` is False if some block was timed while other work of ours may have been running. `cpu_share`
    is the CPU time that this process got over the time that passed: about 1 per thread on a quiet machine.
    """

    block_ms: Times
    run_ms: Times
    warmup_runs: int
    lock_held: bool
    cpu_share: float


def time_sessions(
    timed: Mapping[str, Timed],
    protocol: Protocol,
    seed: int = 0,
    progress: Progress = silent,
    patience: lock.Patience | None = None,
) -> dict[str, Timing]:
    """Time every session in randomised, interleaved blocks; the same seed gives the same order.

    `progress` is called between blocks and may raise Cancelled. The machine's lock is held round by round, and
    `patience` is how long to wait for it (the protocol's, if this is not part of something larger).
    """
    random = np.random.default_rng(seed)
    patience = patience or lock.Patience(protocol.lock_timeout_s)
    names = list(timed)
    clocks: dict[str, _Clock] = {}
    for name in names:
        with patience.exclusive():
            clocks[name] = _Clock(timed[name], protocol)
    for block in range(protocol.blocks):
        with patience.exclusive() as held:
            for position, index in enumerate(random.permutation(len(names))):
                clocks[names[index]].time_block(held)
                done = (block * len(names) + position + 1) / (protocol.blocks * len(names))
                progress(done, f"timing: block {block + 1}/{protocol.blocks}, {names[index]}")
    return {name: clock.timing() for name, clock in clocks.items()}


class _Clock:
    """One session's place in its cycle of batches, the runs that fill one of its blocks, and what it took so far."""

    def __init__(self, timed: Timed, protocol: Protocol) -> None:
        self._timed = timed
        self._position = self._cpu_ns = self._wall_ns = 0
        self._blocks: list[Times] = []
        self._lock_held = True
        warm_up_ms = self._time(1)
        while warm_up_ms.sum() < protocol.warmup_ms and len(warm_up_ms) < protocol.max_runs_per_block:
            warm_up_ms = np.append(warm_up_ms, self._time(len(warm_up_ms)))
        self._discarded = len(warm_up_ms)
        self._runs = protocol.runs_per_block(float(np.median(warm_up_ms[len(warm_up_ms) // 2 :])))

    def time_block(self, lock_held: bool) -> None:
        """Time one block; its first run is discarded."""
        self._blocks.append(self._time(1 + self._runs)[1:])
        self._discarded += 1
        self._lock_held = self._lock_held and lock_held

    def timing(self) -> Timing:
        """All blocks so far."""
        return Timing(
            block_ms=np.median(self._blocks, axis=1),
            run_ms=np.concatenate(self._blocks),
            warmup_runs=self._discarded,
            lock_held=self._lock_held,
            cpu_share=self._cpu_ns / self._wall_ns,
        )

    def _time(self, runs: int) -> Times:
        """The timed loop. Between the two clock readings there is nothing but the run."""
        execute, synchronize = self._timed.session.execute, self._timed.session.synchronize
        batches, clock = self._timed.batches, time.perf_counter_ns
        count, position = len(batches), self._position
        times_ns = np.empty(runs, dtype=np.int64)
        last: dict[int, Outputs] = {}
        collecting = gc.isenabled()
        gc.disable()
        cpu_start, wall_start = time.process_time_ns(), clock()
        try:
            for run in range(runs):
                index = (position + run) % count
                feeds = batches[index]
                start = clock()
                outputs = execute(feeds)
                synchronize()
                end = clock()
                times_ns[run] = end - start
                last[index] = outputs
        finally:
            if collecting:
                gc.enable()
        self._cpu_ns += time.process_time_ns() - cpu_start
        self._wall_ns += max(1, clock() - wall_start)
        self._position = (position + runs) % count
        self._timed.check(last)
        return times_ns / 1e6
