"""Causes that lie in the file: how it was quantized, pruned, or shaped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from labkit.explain.evidence import (
    ALIGNED_CHAIN,
    FILLED,
    MANY_ZEROS,
    UNSIGNED,
    YARDSTICK,
    Evidence,
    block,
    unaligned,
)
from labkit.explain.executed import CONVERSION, DYNAMIC
from labkit.explain.finding import Finding
from labkit.explain.layers import Layer
from labkit.explain.profile import Operator

_CLEARLY = 1.2  # times as long
_FEW = 3


def signed_activations(evidence: Evidence) -> Finding | None:
    """Activations on signed grids, and the same function on unsigned ones is faster."""
    trial = evidence.proved(UNSIGNED)
    if trial is None:
        return None
    stuck = evidence.profile.share(lambda each: each in _in_float_for_its_sign(evidence))
    why = f"; {stuck:.0%} of the time goes into layers that ran in float for that reason" if stuck else ""
    return Finding(
        "signed_activations",
        trial.gone,
        f"The activations lie on signed grids (int8), for which {evidence.profile.runtime} has no fast path: the same "
        f"numbers on unsigned grids run {trial} as fast{why}.",
        "quantize with unsigned activations and signed weights per channel: `labkit quantize MODEL --out DIR`, or "
        "quantize_static(…, activation_type=QuantType.QUInt8, per_channel=True)",
        trial,
    )


def float_layers(evidence: Evidence) -> Finding | None:
    """Layers of a quantized file that ran in float, by the reason."""
    if not evidence.quantized:
        return None
    excused = _in_float_for_its_sign(evidence)
    by_reason: defaultdict[str, list[Operator]] = defaultdict(list)
    for operator, layer in evidence.layers(lambda each, _: each.precision != "int8" and each not in excused):
        by_reason[_why_float(evidence, layer)].append(operator)
    if not by_reason:
        return None
    share = sum(each.share for found in by_reason.values() for each in found)
    reasons = sorted(by_reason.items(), key=lambda item: -sum(each.share for each in item[1]))
    told = "; ".join(f"{_names(found)}: {why}" for why, found in reasons[:_FEW])
    return Finding(
        "float_layers",
        share,
        f"{share:.0%} of the time goes into layers that stayed in float. {told}.",
        "put the named layers on grids, or run the file on an engine that has integer kernels for them: "
        "`labkit measure VARIANT --runtime onnxruntime --runtime openvino`",
    )


def dynamic_convolutions(evidence: Evidence) -> Finding | None:
    """Convolutions whose grids are chosen anew in every run."""
    layers = evidence.dynamic
    if not layers:
        return None
    beside = [each for each in evidence.profile.operators if each.work in (DYNAMIC, CONVERSION)]
    share = sum(each.share for each in {*layers, *beside})
    macs, ms = sum(each.macs or 0 for each in layers), sum(each.ms for each in layers)
    speed = ""
    if macs and evidence.race.run_ms(YARDSTICK):
        speed = f"; they reach {macs / ms / evidence.yardstick:.1%} of the speed of a statically quantized layer here"
    return Finding(
        "dynamic_convolutions",
        share,
        f"{share:.0%} of the time goes into {len(layers)} convolutions under dynamic quantization (ConvInteger and "
        f"what chooses its grids in every run){speed}.",
        "quantize statically, with calibration samples: `labkit quantize MODEL --dataset D --out DIR`; dynamic "
        "quantization is for large matrix products",
    )


def weight_only(evidence: Evidence) -> Finding | None:
    """Weights in few bits, and arithmetic in float."""
    layers = evidence.weight_only
    if not layers:
        return None
    expanding = [each for each in evidence.profile.operators if each.kind == "DequantizeLinear"]
    share = sum(each.share for each in {*layers, *expanding})
    spent = sum(each.share for each in expanding)
    when = f"in every run, for {spent:.0%} of the time" if spent > 0 else "when it is loaded"  # noqa: PLR2004
    return Finding(
        "weight_only",
        share,
        f"Only the weights are quantized: the engine expands them to float ({when}), and the layers, {share:.0%} of "
        "the time with that, compute as before. The file is smaller, the arithmetic is not.",
        "quantize the activations too: `labkit quantize MODEL --dataset D --out DIR`; weights alone give speed only "
        "where reading them is what takes the time (large matrix products, batch 1) and the engine has a kernel for it",
    )


def unstructured_zeros(evidence: Evidence) -> Finding | None:
    """Many weights are zero, and dense kernels multiply by them."""
    found = [
        (each, layer)
        for each, layer in evidence.layers(lambda _, layer: layer.zeros >= MANY_ZEROS)
        if layer.weight is not None
    ]
    if not found:
        return None
    share = sum(each.share * layer.zeros for each, layer in found)
    layers = _layers([each for each, _ in found])
    zeros = sum(layer.zeros * layer.weight.size for _, layer in found if layer.weight is not None)
    weights = sum(layer.weight.size for _, layer in found if layer.weight is not None)
    trial = evidence.race.faster(FILLED)
    asked = f" With every zero filled in, it runs {trial} as fast." if trial else ""
    return Finding(
        "unstructured_zeros",
        share,
        f"{zeros / weights:.0%} of the weights of {layers} are zero, and the dense kernels multiply by them all the "
        f"same: {share:.0%} of the time.{asked}",
        "remove whole channels instead of single weights: `labkit prune MODEL --method channels --out DIR`",
        trial,
    )


def unaligned_channels(evidence: Evidence) -> Finding | None:
    """Channels that are no multiple of the vector's width, where more of them would be faster."""
    channels = block(evidence.environment)
    trial = evidence.proved(ALIGNED_CHAIN)
    if evidence.chain is None or trial is None:
        return None
    found = [each for each, _ in evidence.layers(lambda _, layer: unaligned(layer, channels))]
    share = sum(each.share for each in found) * trial.gone
    own, wide = evidence.chain, evidence.chain.aligned(channels)
    return Finding(
        "unaligned_channels",
        share,
        f"The channels of {_layers(found)} are no multiple of {channels}: convolutions from {own.inputs} to "
        f"{own.outputs} channels, timed alone, run {trial} as fast with {wide.inputs} and {wide.outputs}, though that "
        f"is more arithmetic. {share:.0%} of the time would go.",
        f"make the widths multiples of {channels} (8 at least); when pruning channels, leave such a number",
        trial,
    )


def slow_integer_layers(evidence: Evidence) -> Finding | None:
    """Layers that take longer in integers than the baseline's do in float: this engine's kernels do not suit them."""
    if evidence.against is None or not evidence.quantized:
        return None
    before = {each.layer: each for each in evidence.against.operators if each.layer}
    found = [
        (each, before[each.layer])
        for each, _ in evidence.layers(
            lambda each, _: each.precision == "int8" and each.kind != "ConvInteger"
        )
        if each.layer in before and each.ms > _CLEARLY * before[each.layer].ms
    ]
    if not found or evidence.against.batch_size != evidence.profile.batch_size:
        return None
    lost_ms = sum(now.ms - then.ms for now, then in found)
    now, then = max(found, key=lambda pair: pair[0].ms - pair[1].ms)
    return Finding(
        "slow_integer_layers",
        lost_ms / evidence.profile.total_ms,
        f"{len(found)} layers take longer in int8 than in the baseline's {then.precision}, most of all {now.layer} "
        f"({now.ms:.3f} ms against {then.ms:.3f}): {evidence.profile.runtime}'s integer kernels do not suit them.",
        "leave these layers in float (those of few input channels, and depthwise ones, are the usual cases), or try "
        "another engine: `labkit measure VARIANT --runtime onnxruntime --runtime openvino`",
    )


def _in_float_for_its_sign(evidence: Evidence) -> set[Operator]:
    if evidence.proved(UNSIGNED) is None:
        return set()
    return {
        each
        for each, _ in evidence.layers(
            lambda each, layer: each.precision != "int8" and layer.on_grids and layer.signed
        )
    }


def _why_float(evidence: Evidence, layer: Layer) -> str:
    """The reason that the file gives, or the engine's own decision."""
    assert evidence.file is not None  # noqa: S101 - a layer comes from a file
    told = evidence.file.left.get(layer.node) or evidence.file.left.get(layer.name)
    if told:
        return told
    if layer.weight is None:
        return "both of its inputs are computed, neither is a stored weight"
    if layer.kind == "ConvTranspose" and layer.weight_grid:
        return f"{evidence.profile.runtime} has no integer kernel for transposed convolutions"
    if not layer.weight_grid:
        return "its weight is stored in float"
    if not layer.input_grid:
        return "its input is not rounded to a grid"
    if not layer.on_grids:
        return "its output is not rounded to a grid"
    return f"the file has it on grids, and {evidence.profile.runtime} computes it in float all the same"


def _names(found: Sequence[Operator]) -> str:
    dearest = sorted(found, key=lambda each: -each.ms)
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    return ", ".join(each.layer for each in dearest[:_FEW]) + more


def _layers(found: Sequence[Operator]) -> str:
    return f"{len(found)} layer{'s' * (len(found) != 1)} ({_names(found)})"
