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
from labkit.quantize.arithmetic import choose_scale, dequantize, quantize, weight_scale
from labkit.quantize.calibrate import Range, activations
from labkit.quantize.qdq import Plan
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
    ranges: Mapping[str, Range],
    samples: Split,
    per_channel: bool,
) -> list[Noise]:
    """The SNR of every weight and activation of `plan` over `samples`, the worst first."""
    graph = Graph(model)
    found = []
    for layer in plan.layers:
        weight, axis = graph.constant(layer.weight), layer.axis if per_channel else None
        assert weight is not None  # noqa: S101 - a plan's weights are constants
        grid = weight_scale(weight, axis)
        back = dequantize(quantize(weight, *grid, signed=True, axis=axis), *grid, axis)
        found.append(Noise(layer.weight, "weight", _per_channel_snr_db(weight, back, layer.axis)))
    signal, noise = dict.fromkeys(ranges, 0.0), dict.fromkeys(ranges, 0.0)
    for values in activations(variant, model, list(ranges), samples, lambda fraction, message: None):
        for name, x in values.items():
            grid = choose_scale(ranges[name].low, ranges[name].high)
            back = dequantize(quantize(x, *grid), *grid)
            signal[name] += float(np.sum(np.square(x, dtype=np.float64)))
            noise[name] += float(np.sum(np.square(x - back, dtype=np.float64)))
    found += [Noise(name, "activation", snr_db(signal[name], noise[name])) for name in ranges]
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
