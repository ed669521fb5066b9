"""What the widgets of the quantization lesson are tried on, and how their words are read."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from labkit.quantize.sensitivity import Choice
from labkit.widgets import MixedGame, tally, watch

HOSTILE = '<img src=x onerror="alert(1)">'
SVG = "{http://www.w3.org/2000/svg}"
WAIT_S = 30.0


def words(drawing: str) -> list[str]:
    """Every text in a drawing; it must be sound XML."""
    return [each.text or "" for each in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def weights(channels: int = 4) -> np.ndarray:
    """Channels of 3×3 weights, each a fifth of the one before it."""
    drawn = np.random.default_rng(0).normal(size=(channels, 1, 3, 3))
    return (drawn * 0.2 ** np.arange(channels).reshape(-1, 1, 1, 1)).astype(np.float32)


def values(tail: float = 6.0) -> np.ndarray:
    """What a ReLU leaves, with a long tail."""
    drawn = np.random.default_rng(1).normal(size=(64, 100)).astype(np.float32)
    drawn[0, 0] = tail * 4
    return np.maximum(drawn, 0)


@functools.cache
def watched() -> Mapping[str, Any]:
    """Two tensors with their calibrators, one of them with a hostile name."""
    both = np.random.default_rng(2).standard_t(3, size=(64, 100)).astype(np.float32)
    return watch(
        {"relu": a, HOSTILE: b} for a, b in zip(np.split(values(), 8), np.split(both, 8), strict=True)
    )


LAYERS = ("conv1.weight", "conv2.weight", f"fc{HOSTILE}")
CHOICES = [
    Choice(weight, bits, bits * 100 * (index + 1), noise * (index + 1))
    for index, weight in enumerate(LAYERS)
    for bits, noise in ((32, 0.0), (8, 1e-4), (4, 1e-2))
]
BUDGET = 5000  # all 8 bits: 4800


def point(assignment: Mapping[str, int], drop_pp: float = 0.5) -> SimpleNamespace:
    bits = sorted(assignment.values(), reverse=True)
    counts = ", ".join(f"{each}: {bits.count(each)}" for each in dict.fromkeys(bits))
    size = tally(CHOICES, assignment, BUDGET).weight_bytes + 300
    interval = (drop_pp - 0.2, drop_pp + 0.3)
    return SimpleNamespace(
        assignment=dict(assignment), counts=counts, size_bytes=size, drop_pp=drop_pp, drop_ci95=interval
    )


def uniform(bits: int) -> dict[str, int]:
    return dict.fromkeys(LAYERS, bits)


def game(measure: Any = lambda assignment, progress: point(assignment)) -> MixedGame:
    return MixedGame(CHOICES, BUDGET, measure, [point(uniform(8), 0.1), point(uniform(4), 3.0)])
