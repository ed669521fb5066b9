"""Causes that lie between the layers: conversions of numbers, changes of layout, and operators without weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from labkit.explain.evidence import Evidence, block
from labkit.explain.executed import CONVERSION, OTHER
from labkit.explain.finding import Finding
from labkit.explain.profile import Operator

_MUCH = 0.25  # of the time: some work between the layers is what every network has
_MOST_KINDS = 4
_LAYOUTS = ("ReorderInput", "ReorderOutput", "Transpose", "Reorder")
"""What engines insert to lay the same numbers out anew. In a quantized file OpenVINO's Reorder may round them too,
and ONNX Runtime's Transpose leads to integer kernels: there, both belong to the borders of integers."""


def conversions(evidence: Evidence) -> Finding | None:
    """Operators that only convert numbers, integers to floats and back, and the changes of layout at such borders."""
    found = _conversions(evidence)
    if evidence.weight_only or evidence.dynamic or not found:
        return None
    share = sum(each.share for each in found)
    return Finding(
        "conversions",
        share,
        f"{share:.0%} of the time goes into {_operators(found)} that only convert: {_kinds(found)}. Each layer "
        "that the engine computes in integers beside one that it does not costs a conversion there and back.",
        "quantize what lies between the layers too, or nothing there: fewer borders between integers and floats; "
        "an activation function that the engine fuses (ReLU) leaves none",
    )


def layouts(evidence: Evidence) -> Finding | None:
    """Operators that lay the same numbers out anew, where no border of integers is the reason."""
    at_borders = _conversions(evidence)
    found = [each for each in _work(evidence, CONVERSION) if each not in at_borders]
    if evidence.weight_only or evidence.dynamic or not found:
        return None
    share, channels = sum(each.share for each in found), block(evidence.environment)
    return Finding(
        "layouts",
        share,
        f"{share:.0%} of the time goes into {_operators(found)} that only change the layout in memory: "
        f"{_kinds(found)}. {evidence.profile.runtime} computes convolutions in blocks of channels ({channels} here) "
        "and lays tensors out anew where it enters or leaves these blocks; no number changes.",
        f"make the widths multiples of {channels} (`round_to` when pruning channels): with others, some operators "
        "leave the blocks; and put between convolutions what the engine computes in blocks too (ReLU, additions, "
        "pooling) instead of what it does not (GELU, softmax)",
    )


def outside_layers(evidence: Evidence) -> Finding | None:
    """Quantized layers, and most of the time elsewhere (Amdahl 1967)."""
    found = _work(evidence, OTHER)
    share = sum(each.share for each in found)
    if not evidence.quantized or evidence.dynamic or share < _MUCH:
        return None
    return Finding(
        "outside_layers",
        share,
        f"{share:.0%} of the time goes into operators that multiply with no weights, where int8 gains little or "
        f"nothing: {_kinds(found)}. If all layers took no time, it would be {1 / share:.1f}× as fast, and no more.",
        "make these cheaper: an activation function that the engine fuses (ReLU instead of GELU), fewer tokens or "
        "pixels, an engine that fuses them",
    )


def _conversions(evidence: Evidence) -> list[Operator]:
    """What converts numbers; in a quantized file that does so, every change of layout too."""
    found = _work(evidence, CONVERSION)
    numbers = [each for each in found if each.kind not in _LAYOUTS]
    return found if evidence.quantized and numbers else numbers


def _work(evidence: Evidence, work: str) -> list[Operator]:
    return [each for each in evidence.profile.operators if each.work == work]


def _operators(found: Sequence[Operator]) -> str:
    return f"{len(found)} operator{'s' * (len(found) != 1)}"


def _kinds(found: Sequence[Operator]) -> str:
    """The most expensive kinds with their shares: Softmax 20 %, Erf 11 %."""
    shares: defaultdict[str, float] = defaultdict(float)
    for each in found:
        shares[each.kind] += each.share
    dearest = sorted(shares.items(), key=lambda item: -item[1])[:_MOST_KINDS]
    return ", ".join(f"{kind} {share:.0%}" for kind, share in dearest)
