"""Trials: the variant timed beside itself with one suspect taken away, in turns, so that a ratio means something.

A profile says where the time goes. It does not say where it would go if something were different: with one thread
fewer, a larger batch, other grids. That is asked of the clock. All entrants of a race are open at once and take
turns, block by block (labkit/measure/timing.py). A block's time is the lower quartile of its runs, as an operator's
is in a profile, because other work on the machine only ever adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from labkit.measure import Protocol
from labkit.measure.timing import Timed, Times, Timing, time_sessions
from labkit.progress import Progress, silent
from labkit.runtimes import RunOptions, Runtime
from labkit.runtimes.openvino import OpenVino
from labkit.statistics import Interval, ratio_interval
from labkit.variant import Array, Variant

ITSELF, AGAINST = "itself", "as the baseline"
_BUSY = 0.8


class AsItPleases(OpenVino):
    """OpenVINO whose precision is not pinned: it takes bfloat16 by itself where the processor has it."""

    def settings(self, options: RunOptions) -> dict[str, object]:
        """The usual ones without the precision."""
        told = super().settings(options)
        del told["INFERENCE_PRECISION_HINT"]
        return told


@dataclass(frozen=True)
class Ratio:
    """How many times faster one is than another, per sample, with its 95 % interval; above 1 is faster."""

    value: float
    ci95: Interval

    @property
    def gone(self) -> float:
        """The share of the time that is gone in the faster one."""
        return max(0.0, 1 - 1 / self.value)

    def __str__(self) -> str:
        """As in 2.91× [2.85, 2.97]."""
        return f"{self.value:.2f}× [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]"


@dataclass(frozen=True, eq=False)
class Entrant:
    """A variant, what it is fed, who executes it, and how."""

    variant: Variant
    feeds: Mapping[str, Array]
    runtime: Runtime
    options: RunOptions

    @property
    def batch_size(self) -> int:
        """Samples a run."""
        return len(next(iter(self.feeds.values())))


@dataclass(frozen=True, eq=False)
class Race:
    """The block times of all entrants, by name."""

    entrants: Mapping[str, Entrant]
    timings: Mapping[str, Timing]

    def faster(self, name: str, than: str = ITSELF) -> Ratio | None:
        """How many times faster, per sample, `name` is than `than`; None if one of the two did not run."""
        if name not in self.timings or than not in self.timings:
            return None
        logs = [
            np.log(_block_ms(self.timings[each]) / self.entrants[each].batch_size) for each in (than, name)
        ]
        return Ratio(*ratio_interval(logs[0] - logs[1]))

    def run_ms(self, name: str) -> float | None:
        """The time of one run."""
        return float(np.median(_block_ms(self.timings[name]))) if name in self.timings else None

    def with_more(self, other: Race) -> Race:
        """The blocks of this race and of a later one with the same entrants."""
        joined = {name: _joined(timing, other.timings[name]) for name, timing in self.timings.items()}
        return Race(self.entrants, joined)

    @property
    def was_busy(self) -> bool:
        """Whether something else took much of the processor meanwhile."""
        return min(timing.cpu_share for timing in self.timings.values()) < _BUSY


def _block_ms(timing: Timing) -> Times:
    """The lower quartile of each block's runs."""
    return np.quantile(timing.run_ms.reshape(len(timing.block_ms), -1), 0.25, axis=1)


def _joined(first: Timing, second: Timing) -> Timing:
    """The blocks of both, each as one run: blocks of two races need not have equally many."""
    return Timing(
        block_ms=np.concatenate([first.block_ms, second.block_ms]),
        run_ms=np.concatenate([_block_ms(first), _block_ms(second)]),
        warmup_runs=first.warmup_runs + second.warmup_runs,
        lock_held=first.lock_held and second.lock_held,
        cpu_share=min(first.cpu_share, second.cpu_share),
    )


def race(entrants: Mapping[str, Entrant], protocol: Protocol, progress: Progress = silent) -> Race:
    """Open all entrants, check that each can run, and time them in turns."""
    with ExitStack() as stack:
        timed: dict[str, Timed] = {}
        for name, entrant in entrants.items():
            session = stack.enter_context(entrant.runtime.load(entrant.variant, entrant.options))
            session.run(entrant.feeds)
            timed[name] = Timed(session, [entrant.feeds])
        return Race(entrants, time_sessions(timed, protocol, progress=progress))


Racer = Callable[[Mapping[str, Entrant], Protocol, Progress], Race]
"""`race`, or what a test puts in its place."""
