"""Side by side: models on their runtimes take turns in the same rounds, one thread, and a ratio has its interval."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.data import Dataset
from labkit.measure import Protocol
from labkit.measure.timing import Timed, time_sessions
from labkit.runtimes import RunOptions, get_runtime
from labkit.statistics import Interval, ratio_interval
from labkit.variant import Variant

Blocks = dict[str, np.ndarray[Any, Any]]
_BATCHES = 4


@dataclass(frozen=True, eq=False)
class Entrant:
    """A variant, where it runs, and how."""

    variant: Variant
    runtime: str
    options: RunOptions = RunOptions()


def race(entrants: Mapping[str, Entrant], dataset: Dataset, batch_size: int, quick: bool) -> Blocks:
    """Name → block times in ms, interleaved, of a batch of test images."""
    test = dataset.split("test")
    batches = [
        test.take(slice(i, i + batch_size)).inputs for i in range(0, _BATCHES * batch_size, batch_size)
    ]
    protocol = Protocol.brief() if quick else Protocol(blocks=24, block_ms=60.0)
    with contextlib.ExitStack() as stack:
        timed = {}
        for name, entrant in entrants.items():
            engine, variant = get_runtime(entrant.runtime), entrant.variant
            session = stack.enter_context(engine.load(variant, entrant.options))
            feeds = [variant.feeds(batch) for batch in batches]
            session.run(feeds[0])
            timed[name] = Timed(session, feeds)
        return {name: timing.block_ms for name, timing in time_sessions(timed, protocol).items()}


def ratio(blocks: Mapping[str, Any], name: str, to: str) -> tuple[float, Interval]:
    """How many times the time of `to` the time of `name` is, with its interval."""
    return ratio_interval(np.log(blocks[name] / blocks[to]))
