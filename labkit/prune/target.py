"""How far to prune: until a share of the multiply-adds, the parameters, the bytes or the time is left.

What is left falls as the pruning ratio rises, so the ratio is found by bisection. Counts are those of the narrow
graph (`measure/counting.py`). Time is not counted but measured: on the runtime that is named, one thread, one sample,
the narrow network and the original taking turns, so that whatever slows the machine slows both.

Which widths a runtime likes is measured too: its kernels compute 4, 8 or 16 channels at a time, and which of these it
is depends on the engine, the processor and the layers. The multiple is best whose network takes the least time for
each multiply-add that it has left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from labkit.errors import TechniqueError
from labkit.measure.counting import count
from labkit.measure.protocol import Protocol
from labkit.measure.records import Reason
from labkit.measure.timing import Timed, time_sessions
from labkit.progress import Progress
from labkit.prune.coupling.axis import Numbers
from labkit.prune.structure import Structure
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from labkit.variant import Variant

if TYPE_CHECKING:
    from labkit.prune.channels import PruneChannels

TARGETS = ("ratio", "macs", "parameters", "bytes", "latency")
MULTIPLES = (1, 4, 8, 16)
_STEPS = {"macs": 12, "parameters": 12, "bytes": 12, "latency": 8}
_LARGEST_RATIO = 0.99

Choose = Callable[[float], Sequence[Numbers]]
"""Pruning ratio → the units to remove."""


def reach(
    technique: PruneChannels, structure: Structure, choose: Choose, progress: Progress
) -> Sequence[Numbers]:
    """The fewest units to remove so that at most `keep` of the target is left.

    Raises TechniqueError if more is left even where one unit of each group stays, or the target cannot be counted.
    """
    target, keep = technique.target, technique.keep
    original = structure.graph([])

    def left(ratio: float) -> float:
        narrow = structure.graph(choose(ratio))
        return (
            _time_left(original, narrow, technique.runtime)
            if target == "latency"
            else _count(target, narrow) / _count(target, original)
        )

    low, high = 0.0, _LARGEST_RATIO
    least = left(high)
    if least > keep:
        raise TechniqueError(
            f"keep={keep} of the {target} of {structure.variant.name!r} cannot be reached: {least:.3f} are left with "
            f"hardly a channel in what may shrink; raise keep, or prune what='all' with round_to=1"
        )
    for step in range(_STEPS[target]):
        middle = (low + high) / 2
        share = left(middle)
        progress(
            (step + 1) / _STEPS[target],
            f"{middle:.1%} of the channels removed leave {share:.1%} of the {target}",
        )
        low, high = (low, middle) if share <= keep else (middle, high)
    return choose(high)


def favourite_multiple(
    structure: Structure, choose: Callable[[int], Sequence[Numbers]], runtime: str, progress: Progress
) -> int:
    """The multiple of channels that `runtime` likes best, of MULTIPLES: the least time a multiply-add.

    choose: multiple → the units to remove. Multiples at which nothing would be removed are not tried.
    """
    original, costs = structure.graph([]), dict[int, float]()
    for index, multiple in enumerate(MULTIPLES):
        if removed := choose(multiple):
            narrow = structure.graph(removed)
            share = _count("macs", narrow) / _count("macs", original)
            costs[multiple] = _time_left(original, narrow, runtime) / share
        progress((index + 1) / len(MULTIPLES), f"timing widths that are multiples of {multiple}")
    return min(costs, key=lambda multiple: costs[multiple], default=1)


def _count(target: str, graph: Variant) -> float:
    """Multiply-adds or parameters of a graph, or the bytes of its file."""
    if target == "bytes":
        return float(graph.size_bytes)
    counts = count(graph, probe(graph, batch_size=1))
    found = counts.macs if target == "macs" else counts.parameters
    if isinstance(found, Reason):
        raise TechniqueError(f"target={target!r} cannot be used: {found}; take target='parameters'")
    return float(found)


def _time_left(original: Variant, narrow: Variant, runtime: str) -> float:
    """The narrow graph's time as a share of the original's: the median over blocks in which they took turns."""
    engine, options = get_runtime(runtime), RunOptions(threads=1)
    with engine.load(original, options) as first, engine.load(narrow, options) as second:
        timed = {
            name: Timed(session, [probe(original, batch_size=1, seed=seed) for seed in range(4)])
            for name, session in (("original", first), ("narrow", second))
        }
        times = time_sessions(timed, Protocol.brief())
    return float(np.median(times["narrow"].block_ms / times["original"].block_ms))
