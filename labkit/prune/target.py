"""How far to prune: until a share of the multiply-adds, the parameters, the bytes or the time is left.

What can be counted (`measure/counting.py`, on the narrow graph) falls as the pruning ratio rises, and the ratio is
found by bisection. Time is not counted but measured, on the runtime that is named, one thread, one sample. It is noisy
and does not always fall: one wrong answer would lead a bisection astray for good. So networks of many ratios and
the original take turns in the same rounds, and then more of them between the two that enclose the goal.

Which widths a runtime likes is measured too: its kernels compute 4, 8 or 16 channels at a time, and which of these it
is depends on the engine, the processor and the layers. Networks of as many multiply-adds, rounded to different
multiples, take turns; the best is the one with the least time a multiply-add.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from labkit.errors import TechniqueError
from labkit.measure.counting import count
from labkit.measure.protocol import Protocol
from labkit.measure.records import Reason
from labkit.measure.timing import Timed, time_sessions
from labkit.progress import Progress, part, silent
from labkit.prune.coupling.axis import Numbers
from labkit.prune.structure import Structure
from labkit.runtimes import RunOptions, get_runtime
from labkit.statistics import Interval, ratio_interval
from labkit.technique import probe
from labkit.variant import Variant

TARGETS = ("ratio", "macs", "parameters", "bytes", "latency")
MULTIPLES = (1, 4, 8, 16)
_LARGEST_RATIO = 0.99
_BISECTIONS = 12
_RATIOS_A_ROUND = 8
_BATCHES = 4
_LONGER_LOOKS = 3  # at most, after a brief one
_DOUBT = 1.03  # a brief look errs by so much: what seems a little too slow is looked at again
_NEAR, _MOST_GROUPS = 0.95, 16

Choose = Callable[[float], Sequence[Numbers]]
"""Pruning ratio → the units to remove."""


def reach(
    target: str, keep: float, runtime: str, structure: Structure, choose: Choose, progress: Progress
) -> Sequence[Numbers]:
    """The fewest units to remove so that at most the share `keep` of the target is left.

    Raises TechniqueError if more is left even where hardly a unit stays, or the target cannot be counted.
    """
    if target == "latency":
        return _by_time(keep, runtime, structure, choose, progress)
    return choose(_ratio_by_count(target, keep, structure, choose, progress))


def favourite_multiple(
    structure: Structure,
    choose: Callable[[int, float], Sequence[Numbers]],
    ratio: float,
    runtime: str,
    progress: Progress = silent,
) -> int:
    """Which of MULTIPLES the widths should be of, for `runtime`.

    choose: (multiple, pruning ratio) → the units to remove. All are given as many multiply-adds as the ratio leaves
    without rounding, or fewer where the next multiple would be too many; those that cannot are left out.
    """
    whole = _count("macs", structure.graph([]))
    keep = _count("macs", structure.graph(choose(1, ratio))) / whole
    graphs = {}
    for index, multiple in enumerate(MULTIPLES):
        counting = part(progress, 0.1 * index, 0.1 * (index + 1))
        try:
            found = _ratio_by_count("macs", keep, structure, functools.partial(choose, multiple), counting)
        except TechniqueError:
            continue
        graphs[multiple] = structure.graph(choose(multiple, found))
    timing = part(progress, 0.1 * len(MULTIPLES), 1.0)
    shares = time_shares(structure.graph([]), list(graphs.values()), runtime, Protocol.paired(), timing)
    cost = {
        multiple: share / _count("macs", graph)
        for (multiple, graph), share in zip(graphs.items(), shares, strict=True)
    }
    return min(cost, key=lambda multiple: cost[multiple], default=1)


def time_shares(
    original: Variant,
    narrow: Sequence[Variant],
    runtime: str,
    protocol: Protocol,
    progress: Progress = silent,
) -> list[float]:
    """The time of each ONNX variant as a share of the original's: medians over blocks in which all took turns."""
    return [
        float(np.median(shares)) for shares in _block_shares(original, narrow, runtime, protocol, progress)
    ]


def time_share(
    original: Variant, narrow: Variant, runtime: str, protocol: Protocol, progress: Progress = silent
) -> tuple[float, Interval]:
    """Of one alone the geometric mean over the blocks, with its 95 % interval."""
    (shares,) = _block_shares(original, [narrow], runtime, protocol, progress)
    return ratio_interval(np.log(shares))


def _block_shares(
    original: Variant, narrow: Sequence[Variant], runtime: str, protocol: Protocol, progress: Progress
) -> list[NDArray[np.float64]]:
    """Block by block: [blocks] for each of `narrow`."""
    engine, options = get_runtime(runtime), RunOptions(threads=1)
    sessions = [engine.load(variant, options) for variant in (original, *narrow)]
    try:
        batches = [probe(original, batch_size=1, seed=seed) for seed in range(_BATCHES)]
        timed = {str(index): Timed(session, batches) for index, session in enumerate(sessions)}
        times = time_sessions(timed, protocol, progress=progress)
    finally:
        for session in sessions:
            session.close()
    first = times["0"].block_ms
    return [times[str(index + 1)].block_ms / first for index in range(len(narrow))]


def _ratio_by_count(
    target: str, keep: float, structure: Structure, choose: Choose, progress: Progress
) -> float:
    """The lowest pruning ratio that leaves at most `keep` of what is counted."""
    whole = _count(target, structure.graph([]))

    def left(ratio: float) -> float:
        return _count(target, structure.graph(choose(ratio))) / whole

    low, high = 0.0, _LARGEST_RATIO
    if (least := left(high)) > keep:
        raise _out_of_reach(target, keep, structure, least)
    for step in range(_BISECTIONS):
        middle = (low + high) / 2
        progress(step / _BISECTIONS, f"counting what a pruning ratio of {middle:.2f} leaves")
        low, high = (low, middle) if left(middle) <= keep else (middle, high)
    return high


def _by_time(
    keep: float, runtime: str, structure: Structure, choose: Choose, progress: Progress
) -> Sequence[Numbers]:
    """The fewest units that were seen to leave at most `keep` of the time.

    Time falls in steps: a residual stream that becomes four channels narrower may save a sixth of all at once. Where
    so much less time is left than was asked for, the groups that made the step stay as narrow as that, and the others
    are given back as much as there is time for.
    """
    low, high, share = _ratio_by_time(keep, 1.0, runtime, structure, choose, part(progress, 0.0, 0.5))
    found = choose(high)
    if share > _NEAR * keep:
        return found
    step = _step(keep, runtime, structure, choose(low), found, part(progress, 0.5, 0.6))
    if not len(step):
        return found

    def others(ratio: float) -> Sequence[Numbers]:
        return [*choose(ratio), step]

    try:
        _, again, _ = _ratio_by_time(keep, high, runtime, structure, others, part(progress, 0.6, 1.0))
    except TechniqueError:  # a brief look saw more time in what had been found
        return found
    return others(again)


def _step(
    keep: float,
    runtime: str,
    structure: Structure,
    before: Sequence[Numbers],
    after: Sequence[Numbers],
    progress: Progress,
) -> Numbers:
    """What `after` removes of the fewest groups that, narrowed so, bring the time of `before` to `keep`; or nothing.

    Whoever saves most time alone comes first. Nothing is also the answer where it takes all groups: that is `after`.
    """
    gone = [np.concatenate([np.empty(0, np.int64), *removed]) for removed in (before, after)]
    lost = [[group.units[np.isin(group.units, each)] for each in gone] for group in structure.coupling.groups]
    changed = [now for then, now in lost if len(now) > len(then)]
    if not 1 <= len(changed) <= _MOST_GROUPS:
        return np.empty(0, np.int64)

    def shares(narrowed: Sequence[Numbers], progress: Progress) -> list[float]:
        graphs = [structure.graph([*before, units]) for units in narrowed]
        return time_shares(structure.graph([]), graphs, runtime, Protocol.paired(), progress)

    order = np.argsort(shares(changed, part(progress, 0.0, 0.5)))
    most = min(len(changed), len(structure.coupling.groups) - 1)
    sets = [np.concatenate([changed[place] for place in order[: n + 1]]) for n in range(most)]
    together = shares(sets, part(progress, 0.5, 1.0)) if sets else []
    enough = (units for units, share in zip(sets, together, strict=True) if share <= keep)
    return next(enough, np.empty(0, np.int64))


def _ratio_by_time(
    keep: float, high: float, runtime: str, structure: Structure, choose: Choose, progress: Progress
) -> tuple[float, float, float]:
    """The lowest pruning ratio up to `high` that was seen to leave at most `keep` of the time.

    Returns the ratio tried before it, the ratio itself, and the share of the time that it left.
    Raises OutOfReach if no ratio did, in blocks long enough to be believed.
    """
    original, low, high = structure.graph([]), 0.0, min(high, _LARGEST_RATIO)
    rounds = (Protocol.brief(), *[Protocol.paired()] * _LONGER_LOOKS)
    for index, protocol in enumerate(rounds):
        ratios = np.linspace(low, high, _RATIOS_A_ROUND + 1)[1:].tolist()
        graphs = [structure.graph(choose(ratio)) for ratio in ratios]
        timing = part(progress, index / len(rounds), (index + 1) / len(rounds))
        shares = time_shares(original, graphs, runtime, protocol, timing)
        limit = keep if index else _DOUBT * keep
        fitting = [place for place, share in enumerate(shares) if share <= limit]
        if fitting:
            low, high = [low, *ratios][fitting[0]], ratios[fitting[0]]
            if index > 0:
                return low, high, shares[fitting[0]]
        elif index == 0:
            raise _out_of_reach("latency", keep, structure, min(shares))
        else:  # a brief look took its last ratio for fast enough, or nearly so: what is asked for lies beyond
            low, high = high, min(2 * high - low, _LARGEST_RATIO)
    raise _out_of_reach("latency", keep, structure, min(shares))


class OutOfReach(TechniqueError):
    """More than `keep` is left even where hardly a unit stays: `least`, a share."""

    def __init__(self, message: str, least: float) -> None:
        super().__init__(message)
        self.least = least


def _out_of_reach(target: str, keep: float, structure: Structure, least: float) -> OutOfReach:
    return OutOfReach(
        f"keep={keep} of the {target} of {structure.variant.name!r} cannot be reached: {least:.3f} are left with "
        "hardly a channel in what may shrink",
        least,
    )


def _count(target: str, graph: Variant) -> float:
    """Multiply-adds or parameters of a graph, or the bytes of its file."""
    if target == "bytes":
        return float(graph.size_bytes)
    counts = count(graph, probe(graph, batch_size=1))
    found = counts.macs if target == "macs" else counts.parameters
    if isinstance(found, Reason):
        raise TechniqueError(f"target={target!r} cannot be used: {found}; take target='parameters'")
    return float(found)
