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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labkit.measure import lock
from labkit.progress import Progress, silent
from labkit.runtimes import Session
from labkit.variant import Array

if TYPE_CHECKING:
    from labkit.measure.protocol import Protocol

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
    timed: Mapping[str, Timed], protocol: Protocol, seed: int = 0, progress: Progress = silent
) -> dict[str, Timing]:
    """Time every session in randomised, interleaved blocks; the same seed gives the same order.

    `progress` is called between blocks and may raise Cancelled. Returns a Timing for each name.
    """
    random = np.random.default_rng(seed)
    names = list(timed)
    quiet = _Quiet(protocol.lock_timeout_s)
    clocks: dict[str, _Clock] = {}
    for name in names:
        with quiet.hold():
            clocks[name] = _Clock(timed[name], protocol)
    blocks: dict[str, list[Times]] = {name: [] for name in names}
    for block in range(protocol.blocks):
        with quiet.hold():
            for position, index in enumerate(random.permutation(len(names))):
                name = names[index]
                blocks[name].append(clocks[name].block())
                done = (block * len(names) + position + 1) / (protocol.blocks * len(names))
                progress(done, f"timing: block {block + 1}/{protocol.blocks}, {name}")
    return {
        name: Timing(
            np.median(blocks[name], axis=1),
            np.concatenate(blocks[name]),
            clocks[name].discarded,
            quiet.always,
            clocks[name].cpu_ns / clocks[name].wall_ns,
        )
        for name in names
    }


class _Quiet:
    """The machine's lock, waited for once: after one timeout we only try, and remember having none."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.always = True

    @contextmanager
    def hold(self) -> Iterator[None]:
        with lock.exclusive(self._timeout_s) as held:
            if not held:
                self.always, self._timeout_s = False, 0.0
            yield


class _Clock:
    """One session's place in its cycle of batches, and the number of runs that fill one of its blocks."""

    def __init__(self, timed: Timed, protocol: Protocol) -> None:
        self._timed = timed
        self._position = 0
        self.cpu_ns = self.wall_ns = 0
        warm_up_ms = self._time(1)
        while warm_up_ms.sum() < protocol.warmup_ms and len(warm_up_ms) < protocol.max_runs_per_block:
            warm_up_ms = np.append(warm_up_ms, self._time(len(warm_up_ms)))
        self.discarded = len(warm_up_ms)
        self._runs = protocol.runs_per_block(float(np.median(warm_up_ms[len(warm_up_ms) // 2 :])))

    def block(self) -> Times:
        """Time one block; returns [runs] milliseconds."""
        self.discarded += 1
        return self._time(1 + self._runs)[1:]

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
        self.cpu_ns += time.process_time_ns() - cpu_start
        self.wall_ns += max(1, clock() - wall_start)
        self._position = (position + runs) % count
        self._timed.check(last)
        return times_ns / 1e6
