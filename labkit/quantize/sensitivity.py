"""Which layers mind: quantize one at a time, and look at what the model answers.

The damage of one layer is the noise that its rounding alone puts on the model's outputs, as a share of their power:

    noise = Σ (y − ŷ)² / Σ (y − ȳ)²,      in decibels  SNR = −10 · log10(noise)

over a few hundred samples. Errors of different layers are nearly independent, so their noises nearly add up. That
is what makes a search over all layers possible without trying all combinations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.data import Split
from labkit.onnx_graph import Graph, set_constant
from labkit.progress import Progress, part, silent
from labkit.quantize.arithmetic.grid import Grid
from labkit.quantize.calibration.calibrate import activations
from labkit.quantize.graph.plan import Plan, make_plan
from labkit.quantize.graph.qdq import Rounded, insert_qdq
from labkit.quantize.noise import snr_db
from labkit.variant import Array, Variant

FLOAT_BITS = 32


@dataclass(frozen=True)
class Choice:
    """One layer with its weight in so many bits (32 for float32): the bytes it takes, the noise it makes."""

    weight: str
    bits: int
    weight_bytes: int
    noise: float

    @property
    def snr_db(self) -> float:
        """The noise in decibels: higher is better, infinite for none."""
        return snr_db(1.0, self.noise)


class Candidates:
    """All that a mixed model can be put together from: grids of activations, and each weight in each width.

    Weights of 8 bits and fewer compute in integers, on activations of 8 bits; those of 32 in float.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: Plan,
        grids: Mapping[str, Grid],
        weights: Mapping[int, Mapping[str, Rounded]],
        biases: Mapping[int, Mapping[str, Array]],
        samples: int,
    ) -> None:
        self.model, self.plan, self.grids = model, plan, grids
        self.weights, self.biases, self.samples = weights, biases, samples

    @property
    def names(self) -> list[str]:
        """The weights that can be quantized, in the order of the graph, each once."""
        return list(dict.fromkeys(layer.weight for layer in self.plan.layers))

    def assemble(self, assignment: Mapping[str, int]) -> tuple[onnx.ModelProto, Plan, dict[str, Rounded]]:
        """The model with each weight in the bits that `assignment` gives it (32, 8, or one of the candidates')."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        keep = [name for name, bits in assignment.items() if bits == FLOAT_BITS]
        plan = make_plan(model, keep, self.plan.runtime)
        weights = {each.weight: self.weights[assignment[each.weight]][each.weight] for each in plan.layers}
        for layer in plan.layers:
            bias = self.biases[assignment[layer.weight]].get(layer.bias)
            if bias is not None:
                set_constant(model, layer.bias, bias)
        insert_qdq(model, plan, {name: self.grids[name] for name in set(plan.tensors.values())}, weights)
        return model, plan, weights

    def bytes_of(self, name: str, bits: int) -> int:
        """What the weight takes in the file, its scales included."""
        if bits == FLOAT_BITS:
            return 4 * int(np.prod(Graph(self.model).constants[name].dims))
        integers, grid = self.weights[bits][name]
        return -(-integers.size * (4 if bits <= 4 else 8) // 8) + 5 * grid.scale.size  # noqa: PLR2004


def sensitivity(
    variant: Variant, candidates: Candidates, samples: Split, widths: Sequence[int], progress: Progress
) -> list[Choice]:
    """Every layer in every width alone, all others in float: in the order of the graph, widest first."""
    outputs = [spec.name for spec in variant.outputs]
    expected = _answers(variant, candidates.model, outputs, samples)
    power = sum(float(np.square(y - y.mean(axis=0)).sum()) for y in expected)
    found = []
    for index, name in enumerate(candidates.names):
        report = part(progress, index / len(candidates.names), (index + 1) / len(candidates.names))
        report(0.0, f"sensitivity: {name}")
        found.append(Choice(name, FLOAT_BITS, candidates.bytes_of(name, FLOAT_BITS), 0.0))
        for bits in sorted(widths, reverse=True):
            alone = {each: bits if each == name else FLOAT_BITS for each in candidates.names}
            got = _answers(variant, candidates.assemble(alone)[0], outputs, samples)
            noise = sum(float(np.square(a - b).sum()) for a, b in zip(expected, got, strict=True))
            found.append(Choice(name, bits, candidates.bytes_of(name, bits), noise / max(power, 1e-30)))
    progress(1.0, "sensitivity measured")
    return found


def _answers(variant: Variant, model: onnx.ModelProto, outputs: list[str], samples: Split) -> list[Array]:
    parts = [dict(values) for values in activations(variant, model, outputs, samples, silent)]
    return [np.concatenate([values[name] for values in parts]).astype(np.float64) for name in outputs]
