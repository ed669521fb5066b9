"""Channels: milliseconds beside multiply-adds, on both runtimes, and whether a latency that was asked for is met."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.pruning import BATCH_SIZES, RUNTIMES
from benchmarks.pruning.common import Subject, subject
from benchmarks.pruning.networks import PRUNED
from benchmarks.racing import Entrant, race, ratio
from labkit.cli.terminal import progress_line, say
from labkit.prune import PruneChannels
from labkit.variant import Variant
from labkit.zoo import load_model

_PLACES = tuple(itertools.product(RUNTIMES, BATCH_SIZES))
SPEEDUPS = {place: f"latency_speedup_{place[0]}_b{place[1]}" for place in _PLACES}
_SLOWEST = tuple(f"latency_speedup_{runtime}" for runtime in RUNTIMES)
_DROPS = ("latency_drop_pp", "latency_drop_upper_pp", "macs_ratio")
KEEPS = (0.7, 0.5, 0.4)
"""The shares of the time that are asked for."""
ASKED = PruneChannels(target="latency", ranking="global", round_to=4)


def channels(quick: bool) -> Found:
    """The shipped resnet20 with half of its channels: its accuracy, and its time on both runtimes."""
    given = subject(quick)
    if isinstance(given, str):
        return nulls((*SPEEDUPS.values(), *_SLOWEST, *_DROPS), given)
    network = load_model(PRUNED)
    say("all images")
    row = {**given.size(network), **given.loss(network)}
    found = Found(rows=[row])
    found.add(_timed(given, network, quick))
    lost = (row["drop_pp"], row["drop_pp_ci95"][1], 1 / row["macs_share"])
    found.figures |= dict(zip(_DROPS, lost, strict=True))
    return found


def _timed(given: Subject, network: Variant, quick: bool) -> Found:
    """A row for each runtime and batch size: both networks in turns; float32."""
    found, file = Found(), given.export(network)
    for (runtime, batch_size), figure in SPEEDUPS.items():
        say(f"{runtime}, batch {batch_size}")
        entrants = {"dense": Entrant(given.file, runtime), "pruned": Entrant(file, runtime)}
        blocks = race(entrants, given.dataset, batch_size, quick)
        speedup, interval = ratio(blocks, "dense", "pruned")
        found.figures[figure] = speedup
        found.rows.append(
            {
                "runtime": runtime,
                "batch_size": batch_size,
                **{f"{name}_ms": float(np.median(times)) for name, times in blocks.items()},
                "speedup": speedup,
                "speedup_ci95": interval,
            }
        )
    for runtime, figure in zip(RUNTIMES, _SLOWEST, strict=True):
        found.figures[figure] = min(row["speedup"] for row in found.rows if row["runtime"] == runtime)
    return found


def latency_targets(quick: bool) -> Found:
    """Ask for shares of the time on both runtimes, and measure anew what came; nothing is trained for this."""
    given = subject(quick)
    if isinstance(given, str):
        return nulls(["latency_target_error_pct"], given)
    rows = []
    for runtime, keep in [("onnxruntime", 0.5)] if quick else itertools.product(RUNTIMES, KEEPS):
        say(f"{runtime}: {keep:g} of the time")
        technique = PruneChannels(**{**ASKED.config, "runtime": runtime, "keep": keep})
        network = technique(given.module, progress=progress_line())
        entrants = {
            "dense": Entrant(given.file, runtime),
            "pruned": Entrant(given.export(network), runtime),
        }
        share, interval = ratio(race(entrants, given.dataset, 1, quick), "pruned", "dense")
        row = {"runtime": runtime, "asked": keep, "got": share, "got_ci95": interval}
        rows.append({**row, "error_pct": 100 * (share / keep - 1), **given.size(network)})
    return Found({"latency_target_error_pct": max(abs(row["error_pct"]) for row in rows)}, rows)
