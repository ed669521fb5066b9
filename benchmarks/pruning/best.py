"""The fastest that half a point allows: pruned or distilled, and in 8 bits; against PyTorch eager.

All chains are timed in one race, on OpenVINO, batch 32, one thread. Which of them speaks is decided on validation:
the fastest that loses no more than half a point there. Without AMX or VNNI, integers gain little: beside the ratio
stands the share of what this core's integer arithmetic was seen to reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.pruning.common import NONE_CHOSEN, Subject, choose, subject
from benchmarks.pruning.networks import DISTILLED, PRUNED, halved_earlier, narrower, shallower
from benchmarks.quantization.peak import int8_rates
from benchmarks.racing import Entrant, race, ratio
from labkit.cli.terminal import say
from labkit.environment import current
from labkit.quantize import QuantizeInt8
from labkit.runtimes import get_runtime
from labkit.variant import Variant
from labkit.zoo import load_model

RUNTIME, BATCH_SIZE = "openvino", 32
INT8 = QuantizeInt8(300, runtime=RUNTIME, max_drop_pp=5.0)
_EAGER = "PyTorch eager"
_FIGURES = ("best_vs_torch_eager", "best_vs_torch_eager_low", "best_drop_pp", "best_drop_upper_pp")
_PEAK = ("best_share_of_peak",)


def best(quick: bool) -> Found:
    """Every chain: its time and its loss; the chosen one gives the figures."""
    given = subject(quick)
    if isinstance(given, str):
        return nulls((*_FIGURES, *_PEAK), given)
    networks = _networks(given, quick)
    files = {name: INT8(given.export(network), given.dataset) for name, network in networks.items()}
    rows = {name: _row(given, name, networks[name], file) for name, file in files.items()}
    entrants = {_EAGER: Entrant(given.module, "torch")}
    entrants |= {name: Entrant(file, RUNTIME) for name, file in files.items()}
    blocks = race(entrants, given.dataset, BATCH_SIZE, quick)
    for name, row in rows.items():
        speedup, interval = ratio(blocks, _EAGER, name)
        row |= {"ms": float(np.median(blocks[name])), "speedup": speedup, "speedup_ci95": interval}
    eager = {"chain": _EAGER, "ms": float(np.median(blocks[_EAGER]))}
    found = Found(rows=[eager, *rows.values()])
    chosen = choose(list(rows.values()), lambda row: row["speedup"])
    if chosen is None:
        found.add(nulls((*_FIGURES, *_PEAK), NONE_CHOSEN))
        return found
    values = (chosen["speedup"], chosen["speedup_ci95"][0], chosen["drop_pp"], chosen["drop_pp_ci95"][1])
    found.figures |= dict(zip(_FIGURES, values, strict=True))
    found.add(_share_of_peak(chosen, quick))
    return found


def _networks(given: Subject, quick: bool) -> Mapping[str, Variant]:
    """The chains before quantization: two are shipped, three are trained, which takes too long in haste."""
    chains = {
        "pruned → int8": load_model(PRUNED),
        "distilled to half the resolution → int8": load_model(DISTILLED),
    }
    if not quick:
        chains["pruned twice → int8"] = narrower(given.dataset)
        twice = "distilled twice, half the resolution from the first layer on"
        chains[f"{twice} → int8"] = halved_earlier(given.dataset)
        chains[f"{twice}, 16 layers in place of 20 → int8"] = shallower(given.dataset)
    return chains


def _row(given: Subject, name: str, network: Variant, file: Variant) -> dict[str, Any]:
    say(f"{name}: all images")
    engine = get_runtime(RUNTIME)
    losses = [given.loss(file, split, runtime=engine) for split in ("validation", "test")]
    sizes = {**given.size(network), "size_bytes": file.size_bytes}
    return {"chain": name, **sizes, **losses[0], **losses[1], "chosen": False}


def _share_of_peak(chosen: Mapping[str, Any], quick: bool) -> Found:
    """The multiply-adds a second of the chosen chain, over the most that this core was seen to do in 8 bits."""
    machine = current()
    if not (machine.has_vnni or machine.has_amx):
        return nulls(_PEAK, "this processor has neither VNNI nor AMX: no instructions for int8")
    peak = max(row["gmacs_per_s"] for row in int8_rates(quick))
    rate = chosen["macs"] * BATCH_SIZE / (chosen["ms"] * 1e6)
    return Found({_PEAK[0]: rate / peak}, [{"peak_gmacs_per_s": peak, "gmacs_per_s": rate}])
