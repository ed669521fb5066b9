"""Per tensor, per channel, and equalisation: mobilenet as it is, and rescaled in a way that keeps its function."""

from __future__ import annotations

import numpy as np

from benchmarks.quantization.common import Figures, Rows, subject
from labkit.quantize import QuantizeInt8
from labkit.quantize.equalize import Equalize, Unbalance
from labkit.runtimes import get_runtime

SPREAD = 20.0


def collapse(quick: bool) -> tuple[Figures, Rows]:
    """Drops of int8 on test; the parity of the rescaled float model with the original is in its row."""
    given = subject("mobilenet", quick)
    if given is None:
        return {}, []
    unbalanced = Unbalance(spread=SPREAD)(given.variant)
    floats = {
        "natural": given.variant,
        "equalised": Equalize()(given.variant),
        "unbalanced": unbalanced,
        "unbalanced, equalised": Equalize()(unbalanced),
    }
    feeds = given.variant.feeds(given.calibration().inputs)
    answers = {}
    for name, variant in floats.items():
        with get_runtime("onnxruntime").load(variant) as session:
            answers[name] = session.run(feeds)[variant.outputs[0].name]
    drops, rows = {}, []
    for name, variant in floats.items():
        error = np.abs(answers[name] - answers["natural"]).max() / np.abs(answers["natural"]).max()
        for granularity in ("per_tensor", "per_channel"):
            made = QuantizeInt8(granularity=granularity, max_drop_pp=100.0)(variant, given.dataset)
            drop, interval = given.drop_pp(made)
            drops[name, granularity] = drop
            row = {"weights": name, "granularity": granularity, "float_max_rel_error": float(error)}
            rows.append({**row, "drop_pp": drop, "drop_pp_ci95": interval})
    lost = drops["unbalanced", "per_tensor"]
    return {
        "per_tensor_drop_pp": lost,
        "per_channel_drop_pp": drops["unbalanced", "per_channel"],
        "equalisation_recovered_pct": 100 * (lost - drops["unbalanced, equalised", "per_tensor"]) / lost,
        "natural_per_tensor_drop_pp": drops["natural", "per_tensor"],
        "natural_per_channel_drop_pp": drops["natural", "per_channel"],
    }, rows
