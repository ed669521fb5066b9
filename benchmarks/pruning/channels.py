"""Channels: milliseconds beside multiply-adds, on both runtimes, and whether a latency that was asked for is met."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.pruning import BATCH_SIZES, RUNTIMES
from benchmarks.pruning.common import NONE_CHOSEN, Subject, choose, subject
from benchmarks.pruning.networks import PRUNED, narrower
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
    """Resnet20 with half of its channels, and with fewer still: accuracy, and time on both runtimes.

    The figures are those of the smallest that loses no more than half a point on validation.
    """
    given = subject(quick)
    if isinstance(given, str):
        return nulls((*SPEEDUPS.values(), *_SLOWEST, *_DROPS), given)
    networks = {"half of the channels": load_model(PRUNED)}
    if not quick:  # what is trained takes too long in haste
        networks["fewer in the first stage too"] = narrower(given.dataset)
    say("all images")
    rows = [_losses(given, name, network) for name, network in networks.items()]
    chosen = choose(rows, lambda row: -row["macs"])
    if chosen is None:
        return nulls((*SPEEDUPS.values(), *_SLOWEST, *_DROPS), NONE_CHOSEN)
    found = Found(rows=rows)
    found.add(_timed(given, networks, chosen["network"], quick))
    lost = (chosen["drop_pp"], chosen["drop_pp_ci95"][1], 1 / chosen["macs_share"])
    found.figures |= dict(zip(_DROPS, lost, strict=True))
    return found


def _losses(given: Subject, name: str, network: Variant) -> dict[str, Any]:
    losses = {**given.loss(network, "validation"), **given.loss(network)}
    return {"network": name, **given.size(network), **losses, "chosen": False}


def _timed(given: Subject, networks: Mapping[str, Variant], chosen: str, quick: bool) -> Found:
    """A row for each runtime, batch size and network: all in turns with the dense one; float32."""
    found = Found()
    files = {name: given.export(network) for name, network in networks.items()}
    for (runtime, batch_size), figure in SPEEDUPS.items():
        say(f"{runtime}, batch {batch_size}")
        entrants = {name: Entrant(file, runtime) for name, file in {"dense": given.file, **files}.items()}
        blocks = race(entrants, given.dataset, batch_size, quick)
        for name in files:
            speedup, interval = ratio(blocks, "dense", name)
            row = {"runtime": runtime, "batch_size": batch_size, "network": name}
            times = {
                "dense_ms": float(np.median(blocks["dense"])),
                "pruned_ms": float(np.median(blocks[name])),
            }
            found.rows.append({**row, **times, "speedup": speedup, "speedup_ci95": interval})
            if name == chosen:
                found.figures[figure] = speedup
    for figure, runtime in zip(_SLOWEST, RUNTIMES, strict=True):
        found.figures[figure] = min(found.figures[SPEEDUPS[runtime, size]] for size in BATCH_SIZES)
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
