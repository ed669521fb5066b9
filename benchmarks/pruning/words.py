"""What each figure of the benchmark is, in a few words, for README and docs."""

from __future__ import annotations

from benchmarks.pruning import BATCH_SIZES
from benchmarks.tables import Aim

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
CRITERIA = {
    "magnitude": "magnitude",
    "lamp": "LAMP",
    "lamp_per_bit": "LAMP per bit",
    "taylor": "Taylor",
    "movement": "movement",
    "random": "random",
}
ZEROS = (95, 98, 99)
"""Per cent of the weights, as the figures name them."""
TICKETS = {21: "21.1 %", 4: "3.6 %"}

WORDS = {
    **{
        f"latency_speedup_{runtime}_b{size}": f"fewer channels of resnet20: times as fast, {told}, batch {size}"
        for runtime, told in TITLES.items()
        for size in BATCH_SIZES
    },
    **{
        f"latency_speedup_{runtime}": f"fewer channels of resnet20: times as fast, {told}, the worse batch size"
        for runtime, told in TITLES.items()
    },
    "latency_drop_pp": "… points lost on test",
    "latency_drop_upper_pp": "… the upper end of the paired interval",
    "macs_ratio": "… times fewer multiply-adds",
    "latency_target_error_pct": "latency that was asked for, and the one reached: the largest miss of six, %",
    "best_vs_torch_eager": "fastest within half a point on validation, in 8 bits: times PyTorch eager, batch 32",
    "best_vs_torch_eager_low": "… the low end of its interval",
    "best_drop_pp": "… points lost on test",
    "best_drop_upper_pp": "… the upper end of the paired interval",
    "best_share_of_peak": "… share of the int8 multiply-adds a second that this core was seen to reach",
    "vs_torch_pruning_pp": "points ahead of Torch-Pruning, same multiply-adds and fine-tuning, mean of three seeds",
    "torch_pruning_more_accurate": "seeds in which Torch-Pruning is more accurate, by an interval without 0",
    "architectures": "architectures that nobody wrote for pruning",
    "architectures_passed": "… that lose channels, run, export, and equal themselves masked",
    "whole_errors": "LeNet-300-100, whole: errors of 10,000",
    **{
        f"{criterion}_errors_{zeros}": f"… {zeros} % zeros by {told}: errors, median of three seeds"
        for criterion, told in CRITERIA.items()
        for zeros in ZEROS
    },
    "whole_lottery_errors": "LeNet-300-100 from scratch, whole: errors of 10,000",
    **{
        f"{kind}_errors_{share}": f"LeNet-300-100 from scratch, {told} of its weights, {which}: errors of 10,000"
        for share, told in TICKETS.items()
        for kind, which in (("ticket", "the ticket"), ("control", "same mask, weights drawn anew"))
    },
}

IN_README = (
    *(f"latency_speedup_{runtime}" for runtime in TITLES),
    "latency_drop_pp",
    "macs_ratio",
    "latency_target_error_pct",
    "best_vs_torch_eager",
    "best_drop_pp",
    "vs_torch_pruning_pp",
    "architectures",
    "architectures_passed",
    *(f"{kind}_errors_{share}" for share in TICKETS for kind in ("ticket", "control")),
)
"""The figures that the README shows; the others are in docs."""

AIMS = (
    *(
        Aim(
            f"fewer channels: at least twice as fast in {told}, batch 1 and 32",
            f"latency_speedup_{runtime}",
            2.0,
        )
        for runtime, told in TITLES.items()
    ),
    Aim("… at most half a point lost", "latency_drop_pp", 0.5, most=True),
    Aim("a latency that is asked for is met within 10 %", "latency_target_error_pct", 10.0, most=True),
    Aim("distilled and in 8 bits: at least 30 times PyTorch eager", "best_vs_torch_eager", 30.0),
    Aim("… at most half a point lost", "best_drop_pp", 0.5, most=True),
    Aim("at least as accurate as Torch-Pruning: points ahead", "vs_torch_pruning_pp", 0.0),
    Aim("architectures that nobody wrote for pruning", "architectures_passed", 10.0),
)
"""What was to be reached."""
