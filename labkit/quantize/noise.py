"""Where rounding hurts: the signal-to-noise ratio of every tensor that quantization touches.

    SNR = 10 · log10( Σ x² / Σ (x − x̂)² )  in dB,      x̂ = what is left of x on its grid

Eight bits well used give some 40 dB, each bit fewer costs 6. Below about 15 dB a tensor has lost its shape:
its grid is too coarse (an outlier stretched it) or too short (calibration saw too little). Each tensor is
rounded alone here, with float inputs: the figure blames it and not those before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.data import Split
from labkit.onnx_graph import Graph
from labkit.quantize.arithmetic.grid import Grid
from labkit.quantize.calibration.calibrate import activations
from labkit.quantize.graph.plan import Plan
from labkit.quantize.graph.qdq import Rounded
from labkit.variant import Array, Variant


@dataclass(frozen=True)
class Noise:
    """One tensor's rounding error; `kind` is "weight" or "activation"."""

    tensor: str
    kind: str
    snr_db: float


def measure_noise(
    variant: Variant,
    model: onnx.ModelProto,
    plan: Plan,
    grids: Mapping[str, Grid],
    weights: Mapping[str, Rounded],
    samples: Split,
) -> list[Noise]:
    """The SNR of every weight and activation of `plan` over `samples`, the worst first.

    grids: tensor → the grid of an activation. weights: as they will be stored.
    """
    graph = Graph(model)
    found = []
    for layer in plan.layers:
        weight, (integers, grid) = graph.constant(layer.weight), weights[layer.weight]
        assert weight is not None  # noqa: S101 - a plan's weights are constants
        back = grid.dequantize(integers)
        found.append(Noise(layer.weight, "weight", _per_channel_snr_db(weight, back, layer.axis)))
    signal, noise = dict.fromkeys(grids, 0.0), dict.fromkeys(grids, 0.0)
    for values in activations(variant, model, list(grids), samples, lambda fraction, message: None):
        for name, x in values.items():
            back = grids[name].round(x)
            signal[name] += float(np.sum(np.square(x, dtype=np.float64)))
            noise[name] += float(np.sum(np.square(x - back, dtype=np.float64)))
    found += [Noise(name, "activation", snr_db(signal[name], noise[name])) for name in grids]
    return sorted(found, key=lambda item: item.snr_db)


def snr_db(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in decibels; infinite where there is no noise."""
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def _per_channel_snr_db(weight: Array, back: Array, axis: int) -> float:
    """From the mean over channels of noise/signal: in one sum, a few large channels would hide lost ones."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    signal = np.sum(np.square(weight, dtype=np.float64), axis=others)
    noise = np.sum(np.square(weight - back, dtype=np.float64), axis=others)
    lost = noise[signal > 0] / signal[signal > 0]
    return snr_db(1.0, float(lost.mean()) if lost.size else 0.0)
