"""How much faster int8 is than float32 on the same runtime, and what share of this core's peak that is."""

from __future__ import annotations

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.quantization import RUNTIMES
from benchmarks.quantization.common import BATCH_SIZE, Subject, not_shipped, race, subject
from benchmarks.quantization.peak import int8_rates
from benchmarks.racing import ratio
from labkit.environment import current
from labkit.measure.counting import count
from labkit.runtimes import RunOptions

MODEL = "resnet20"
_SPEEDUPS = tuple(f"int8_speedup_{runtime}" for runtime in RUNTIMES)
_BFLOAT16 = ("bfloat16_speedup_openvino", "int8_over_bfloat16_openvino")
_PEAK = ("int8_peak_gmacs_per_s", *(f"int8_share_of_peak_{runtime}" for runtime in RUNTIMES))


def int8_speed(quick: bool) -> Found:
    """resnet20, batch 32, one thread: float32 (pinned), bfloat16 and int8, interleaved; and the peak.

    Where the processor has no instructions for bfloat16 there is no race with it; without any for int8, no peak.
    """
    given = subject(MODEL, quick)
    if given is None:
        return nulls((*_SPEEDUPS, *_BFLOAT16, *_PEAK), not_shipped(MODEL))
    machine, found, int8_ms = current(), Found(), {}
    for runtime in RUNTIMES:
        entrants = {"float32": (given.variant, RunOptions())}
        if runtime == "openvino" and machine.has_bf16:
            entrants["bfloat16"] = (given.variant, RunOptions(precision="bfloat16"))
        entrants["int8"] = (given.int8[runtime], RunOptions())
        blocks = race(entrants, runtime, given, quick)
        int8_ms[runtime] = float(np.median(blocks["int8"]))
        for name in entrants:
            value, interval = ratio(blocks, "float32", name)
            row = {
                "model": MODEL,
                "runtime": runtime,
                "precision": name,
                "ms": float(np.median(blocks[name])),
            }
            found.rows.append({**row, "speedup": value, "speedup_ci95": interval})
            if name != "float32":
                found.figures[f"{name}_speedup_{runtime}"] = value
        scores = given.scores(given.int8[runtime], runtime=runtime)
        found.rows[-1] |= given.behind("drop_pp", given.float_scores, scores)
        if "bfloat16" in blocks:
            value, interval = ratio(blocks, "bfloat16", "int8")
            found.figures[_BFLOAT16[1]] = value
            found.rows[-1] |= {"speedup_over_bfloat16": value, "speedup_over_bfloat16_ci95": interval}
    if not machine.has_bf16:
        found.add(nulls(_BFLOAT16, "this processor has no instructions for bfloat16"))
    found.add(_share_of_peak(given, int8_ms, quick))
    return found


def _share_of_peak(given: Subject, int8_ms: dict[str, float], quick: bool) -> Found:
    """How many multiply-adds per second int8 does, over the most that this core was seen to do."""
    machine = current()
    if not (machine.has_vnni or machine.has_amx):
        return nulls(_PEAK, "this processor has neither VNNI nor AMX: no instructions for int8")
    macs = count(given.variant, given.variant.feeds(given.calibration().take(slice(0, 1)).inputs)).macs
    if not isinstance(macs, int):
        return nulls(_PEAK, f"the multiply-adds of {given.variant.name} cannot be counted")
    rows = int8_rates(quick)
    peak = max(row["gmacs_per_s"] for row in rows)
    shares = [macs * BATCH_SIZE / (int8_ms[runtime] * 1e6) / peak for runtime in RUNTIMES]
    return Found(dict(zip(_PEAK, (peak, *shares), strict=True)), rows)
