"""What a quantization did, written into the file itself, where it cannot get lost."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from labkit.errors import TechniqueError
from labkit.quantize.graph.plan import Plan
from labkit.quantize.graph.qdq import Rounded
from labkit.variant import Variant

_METADATA_KEY = "labkit.quantized"


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantization did: stored in the file, read back by `quantization_report`.

    `bits` counts the quantized layers by the bits of their weights ("8": 20), `left` maps each layer that stayed
    float to the reason. `clip_rate` is the largest share of an activation's values, over training samples, that its
    grid cannot hold; `clipped` names that activation ("" where activations stay float). `drop_pp` is what quality
    lost on the same samples, None if there were none.
    """

    quantized: int
    layers: int
    bits: Mapping[str, int]
    left: Mapping[str, str]
    calibration_samples: int = 0
    clip_rate: float = 0.0
    clipped: str = ""
    drop_pp: float | None = None

    def __str__(self) -> str:
        """One line for people."""
        words = [f"{count} in {bits} bits" for bits, count in sorted(self.bits.items(), reverse=True)]
        told = f"{self.quantized} of {self.layers} layers ({', '.join(words)})"
        if self.calibration_samples:
            told += f", {self.calibration_samples} calibration samples"
        if self.clipped:
            told += f", clip rate {self.clip_rate:.2%} at most"
        return told + ("" if self.drop_pp is None else f", drop {self.drop_pp:.2f} points")


def count_layers(plan: Plan, weights: Mapping[str, Rounded]) -> QuantizationReport:
    """The counts of a report: what of `plan` was quantized, with how many bits."""
    bits = Counter(str(weights[layer.weight].grid.bits) for layer in plan.layers)
    return QuantizationReport(
        len(plan.layers), len(plan.layers) + len(plan.left), dict(bits), dict(plan.left)
    )


def write_report(model: onnx.ModelProto, report: QuantizationReport) -> None:
    """Store `report` in the file's metadata."""
    value = json.dumps(dataclasses.asdict(report), sort_keys=True)
    model.metadata_props.add(key=_METADATA_KEY, value=value)


def has_report(model: onnx.ModelProto) -> bool:
    """Whether labkit has quantized this file."""
    return any(entry.key == _METADATA_KEY for entry in model.metadata_props)


def quantization_report(variant: Variant) -> QuantizationReport:
    """What labkit's quantization wrote into the file; TechniqueError if it did not make this variant."""
    entries = onnx.load_model_from_string(variant.payload).metadata_props if variant.format == "onnx" else ()
    for entry in entries:
        if entry.key == _METADATA_KEY:
            return QuantizationReport(**json.loads(entry.value))
    raise TechniqueError(f"{variant.name!r} was not quantized by labkit: apply labkit.QuantizeInt8() to it")
