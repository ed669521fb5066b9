"""Fewer than 8 bits: rounding to nearest beside rounding that is learned, training on the grid, and mixed precision."""

from __future__ import annotations

from benchmarks.quantization.common import Figures, Rows, paired_pp, subject
from labkit.cli.terminal import say
from labkit.measure.quality import evaluate
from labkit.progress import silent
from labkit.quantize import QuantizeInt8
from labkit.quantize.aware import QuantizeAware
from labkit.quantize.mixed import QuantizeMixed, pareto
from labkit.quantize.weight_only import QuantizeWeights

_WEIGHTS_OF = ("resnet20", "mobilenet")
_LOSS_PP = 2.0
LEARNED = "descent"


def few_bit_weights(quick: bool) -> tuple[Figures, Rows]:
    """Weights of 4, 3 and 2 bits on test, by every rounding; how much of what nearest loses learning recovers."""
    figures: Figures = {}
    rows: Rows = []
    methods = ("nearest", "gptq") if quick else ("nearest", "gptq", "adaround", "descent")
    for model in _WEIGHTS_OF:
        given = subject(model, quick)
        if given is None:
            continue
        drops: dict[tuple[int, str], float] = {}
        for bits in (4, 3, 2):
            for method in methods:
                say(f"{model}: weights in {bits} bits, {method}")
                technique = QuantizeWeights(bits=bits, rounding=method, max_drop_pp=100.0)
                made = technique(given.variant, given.dataset)
                drop, interval = given.drop_pp(made)
                drops[bits, method] = drop
                rows.append(
                    {
                        "model": model,
                        "bits": bits,
                        "rounding": method,
                        "size_bytes": made.size_bytes,
                        "drop_pp": drop,
                        "drop_pp_ci95": interval,
                    }
                )
        figures[f"w4_drop_pp_{model}"] = drops[4, methods[-1]]
        hurt = next((bits for bits in (4, 3, 2) if drops[bits, "nearest"] >= _LOSS_PP), None)
        if hurt is not None:
            lost, left = drops[hurt, "nearest"], drops[hurt, methods[-1]]
            figures[f"w4_recovered_pct_{model}"] = 100 * (lost - left) / lost
            figures[f"w4_recovered_at_bits_{model}"] = hurt
    return figures, rows


def trained_on_the_grid(quick: bool) -> tuple[Figures, Rows]:
    """resnet20 with weights and activations of 4 bits, after quantization-aware training."""
    given = None if quick else subject("resnet20")
    if given is None:
        return {"qat4_drop_pp": None}, []
    technique = QuantizeAware(
        weight_bits=4, activation_bits=4, epochs=2, alpha=0.9, batch_size=64, augment="shift+flip"
    )
    made = technique(given.variant, given.dataset)
    drop, interval = given.drop_pp(made)
    row = {"model": "resnet20", "bits": "W4A4", "size_bytes": made.size_bytes}
    return {"qat4_drop_pp": drop}, [{**row, "drop_pp": drop, "drop_pp_ci95": interval}]


def mixed_precision(quick: bool) -> tuple[Figures, Rows]:
    """The smallest mixed resnet20 that loses no more than uniform 8 bits, and where the uniform ones lie."""
    given = subject("resnet20", quick)
    if given is None:
        return {}, []
    uniform = QuantizeInt8()(given.variant, given.dataset)
    technique = QuantizeMixed(points=4 if quick else 12, rounding="gptq" if quick else LEARNED)
    points = technique.search(given.variant, given.dataset, silent)
    eight = evaluate(uniform, given.dataset, "test")
    rows: Rows = []
    for point in points:
        scores = evaluate(point.variant, given.dataset, "test")
        drop, interval = given.drop_pp(point.variant)
        behind, (low, high) = paired_pp(given.dataset, eight, scores)
        rows.append(
            {
                "bits": point.counts,
                "size_bytes": point.size_bytes,
                "size_over_int8": point.size_bytes / uniform.size_bytes,
                "on_front": point in pareto(points),
                "drop_pp": drop,
                "drop_pp_ci95": interval,
                "behind_int8_pp": behind,
                "behind_int8_pp_ci95": (low, high),
            }
        )
    chosen = min(
        (row for row in rows if row["behind_int8_pp_ci95"][0] <= 0), key=lambda row: row["size_bytes"]
    )
    return {"mixed_size_ratio": chosen["size_over_int8"], "mixed_drop_pp": chosen["behind_int8_pp"]}, rows
