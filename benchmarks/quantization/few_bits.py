"""Fewer than 8 bits: rounding to nearest beside rounding that is learned, and training on the grid.

Which of the learned roundings speaks for labkit is decided beforehand: the one that `QuantizeMixed` uses unless told
otherwise. The table has them all.
"""

from __future__ import annotations

from benchmarks.parts import Found, nulls
from benchmarks.quantization import MODELS
from benchmarks.quantization.common import not_shipped, subject
from labkit.cli.terminal import say
from labkit.quantize.aware import QuantizeAware
from labkit.quantize.mixed import QuantizeMixed
from labkit.quantize.rounding.learn import ROUNDINGS
from labkit.quantize.weight_only import QuantizeWeights

LEARNED = QuantizeMixed().rounding
_BITS = (4, 3, 2)
_LOSS_PP = 2.0


def few_bit_weights(quick: bool) -> Found:
    """Weights of 4, 3 and 2 bits on test, by every rounding; how much of what nearest loses learning recovers."""
    found = Found()
    for model in MODELS:
        found.add(_weights_of(model, quick))
    return found


def _weights_of(model: str, quick: bool) -> Found:
    names = [f"w4_drop_pp_{model}", f"w4_recovered_pct_{model}", f"w4_recovered_at_bits_{model}"]
    given = subject(model, quick)
    if given is None:
        return nulls(names, not_shipped(model))
    drops, rows = {}, []
    for bits in _BITS:
        for rounding in ("nearest", LEARNED) if quick else ROUNDINGS:
            say(f"{model}: weights in {bits} bits, {rounding}")
            made = QuantizeWeights(bits, rounding=rounding, max_drop_pp=100.0)(given.variant, given.dataset)
            row = {
                "model": model,
                "bits": bits,
                "rounding": rounding,
                "ours": rounding == LEARNED,
                "size_bytes": made.size_bytes,
                **given.loss(made),
            }
            drops[bits, rounding] = row["drop_pp"]
            rows.append(row)
    found = Found({names[0]: drops[4, LEARNED]}, rows)
    hurt = next((bits for bits in _BITS if drops[bits, "nearest"] >= _LOSS_PP), None)
    if hurt is None:
        found.add(
            nulls(
                names[1:], f"rounding to nearest loses less than {_LOSS_PP:g} points down to {_BITS[-1]} bits"
            )
        )
    else:
        lost, left = drops[hurt, "nearest"], drops[hurt, LEARNED]
        found.figures |= {names[1]: 100 * (lost - left) / lost, names[2]: hurt}
    return found


def trained_on_the_grid(quick: bool) -> Found:
    """resnet20 with weights and activations of 4 bits, after quantization-aware training."""
    given = subject("resnet20", quick)
    if quick or given is None:
        return nulls(["qat4_drop_pp"], "--quick trains nothing" if quick else not_shipped("resnet20"))
    technique = QuantizeAware(
        weight_bits=4, activation_bits=4, epochs=2, alpha=0.9, batch_size=64, augment="shift+flip"
    )
    made = technique(given.variant, given.dataset)
    row = {
        "model": "resnet20",
        "weight_bits": 4,
        "activation_bits": 4,
        "size_bytes": made.size_bytes,
        **given.loss(made),
    }
    return Found({"qat4_drop_pp": row["drop_pp"]}, [row])
