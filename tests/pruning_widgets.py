"""What the widgets of the pruning lesson are tried on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from labkit.data import load_dataset
from labkit.prune import Widths
from labkit.prune.channel_sensitivity import GroupPruned
from labkit.prune.sensitivity import LayerPruned
from labkit.train import fresh_variant
from labkit.widgets import ChannelGame, Options
from tests.quantization_widgets import HOSTILE

LAYERS = {"conv1": 500, "fc1": 25_000, f"fc2{HOSTILE}": 640}
SPARSITIES = (0.5, 0.9, 0.99)


def scan(factor: float) -> list[LayerPruned]:
    """Each layer loses more than the one before it, and more the sparser it is; the first one most."""
    return [
        LayerPruned(
            layer, weights, s, "accuracy", 1 - drop, drop, (max(0.0, drop - 0.01), min(1.0, drop + 0.01))
        )
        for index, (layer, weights) in enumerate(LAYERS.items())
        for s in SPARSITIES
        for drop in [round(min(0.9, factor * s**8 / (1 + 20 * index)), 4)]
    ]


def scans() -> dict[str, list[LayerPruned]]:
    return {"magnitude": scan(0.5), "random": scan(2.0)}


def runs(seeds: int = 3, rounds: int = 4) -> list[Any]:
    """Tickets stay at 96 %, controls sink by two points a round; seeds are half a point apart."""
    return [
        SimpleNamespace(
            round=number,
            kept=0.8**number,
            ticket=(0.90 + seed * 0.005, 0.96 + seed * 0.005),
            control=(0.80 - number * 0.05, 0.96 - number * 0.02 + seed * 0.005) if number else (),
        )
        for seed in range(seeds)
        for number in range(rounds)
    ]


@functools.cache
def small_widths() -> Widths:
    """An untrained resnet8: six groups of channels, three of them residual streams."""
    return Widths(fresh_variant({"architecture": "resnet8"}, load_dataset("digits")))


def scanned(widths: Widths) -> list[GroupPruned]:
    return [
        GroupPruned(
            group, units, ratio, round(units * ratio), "accuracy", 1 - ratio / 2, ratio / 2, (0.0, 0.6)
        )
        for group, units in widths.groups.items()
        for ratio in (0.25, 0.5, 0.75)
    ]


def narrowed(widths: Widths, assignment: Mapping[str, float], drop_pp: float = 1.0) -> SimpleNamespace:
    kept = sorted(assignment.values(), reverse=True)
    counts = ", ".join(f"{share:.0%}: {kept.count(share)}" for share in dict.fromkeys(kept))
    macs = widths.macs(assignment)
    return SimpleNamespace(
        assignment=dict(assignment),
        counts=counts,
        macs=macs,
        time_share=macs / widths.macs({}) + 0.1,
        drop_pp=drop_pp,
        drop_ci95=(drop_pp - 0.5, drop_pp + 0.5),
    )


def channel_game(measure: Any = None) -> ChannelGame:
    widths = small_widths()
    options = Options(widths, scanned(widths), keep=0.5)
    recorded = [narrowed(widths, dict.fromkeys(widths.groups, share)) for share in (0.75, 0.5)]
    return ChannelGame(
        options, measure or (lambda assignment, progress: narrowed(widths, assignment)), recorded
    )
