"""What each figure of the benchmark is, in a few words, for README and docs."""

from __future__ import annotations

from benchmarks.quantization import MODELS, RUNTIMES

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}

WORDS = {
    **{f"int8_drop_pp_{model}": f"{model}: points that static int8 loses" for model in MODELS},
    **{
        f"int8_accuracy_vs_best_peer_pp_{model}": f"{model}: points ahead of the most accurate peer"
        for model in MODELS
    },
    **{
        f"int8_peers_more_accurate_{model}": f"{model}: peers more accurate, by an interval without 0"
        for model in MODELS
    },
    **{
        f"int8_latency_vs_best_peer_{runtime}_{model}": f"{model}, {told}: time / the fastest peer's"
        for runtime, told in TITLES.items()
        for model in MODELS
    },
    **{
        f"int8_peers_faster_{runtime}_{model}": f"{model}, {told}: peers more than 3 % faster, by an interval without 1"
        for runtime, told in TITLES.items()
        for model in MODELS
    },
    **{
        f"int8_latency_vs_best_peer_{runtime}": f"{told}: time / the fastest peer's, the worst of all models"
        for runtime, told in TITLES.items()
    },
    **{
        f"int8_speedup_{runtime}": f"int8 over float32, {told}, resnet20, batch 32, one thread"
        for runtime, told in TITLES.items()
    },
    "bfloat16_speedup_openvino": "bfloat16 over float32, OpenVINO",
    "int8_over_bfloat16_openvino": "int8 over bfloat16, OpenVINO",
    "int8_peak_gmacs_per_s": "this core's measured int8 peak, 10⁹ multiply-adds/s",
    **{
        f"int8_share_of_peak_{runtime}": f"… the share of it that resnet20 in int8 reaches, {told}"
        for runtime, told in TITLES.items()
    },
    "per_tensor_drop_pp": "mobilenet, channels rescaled: points that int8 per tensor loses",
    "per_channel_drop_pp": "… per channel",
    "equalisation_recovered_pct": "… share of the loss per tensor that equalisation recovers, %",
    "natural_per_tensor_drop_pp": "mobilenet as it is: points that int8 per tensor loses",
    "natural_per_channel_drop_pp": "… per channel",
    **{
        f"w4_drop_pp_{model}": f"{model}: points that weights in 4 bits lose, rounding learned"
        for model in MODELS
    },
    **{
        f"w4_recovered_pct_{model}": f"{model}: share of nearest rounding's loss that learning recovers, %"
        for model in MODELS
    },
    **{
        f"w4_recovered_at_bits_{model}": "… at so many bits, the first where nearest loses 2 points"
        for model in MODELS
    },
    "qat4_drop_pp": "resnet20 trained on the grid, weights and activations in 4 bits: points lost",
    "calibration_memory_ratio": "calibration's peak memory, 4,096 samples / 128, the whole process",
    "calibration_memory_above_loading_ratio": "… above what was loaded before",
    "mixed_size_ratio": "mixed precision: size / uniform int8's, chosen on validation",
    "mixed_drop_pp": "… points behind uniform int8 on test",
    "mixed_front_below_uniform": "… uniform models that beat its front",
    "explain_found": "planted cases of a model that is not faster, in which `explain` names the cause first",
    "explain_planted": "… of so many",
}
"""What each figure is, in a few words."""

IN_README = (
    *(f"int8_drop_pp_{model}" for model in MODELS),
    *(f"int8_accuracy_vs_best_peer_pp_{model}" for model in MODELS),
    *(f"int8_latency_vs_best_peer_{runtime}" for runtime in RUNTIMES),
    *(f"int8_speedup_{runtime}" for runtime in RUNTIMES),
    "per_tensor_drop_pp",
    "per_channel_drop_pp",
    "equalisation_recovered_pct",
    "w4_drop_pp_resnet20",
    "qat4_drop_pp",
    "mixed_size_ratio",
    "mixed_drop_pp",
    "explain_found",
    "explain_planted",
)
"""The figures that the README shows; docs/benchmarks.md has all."""
