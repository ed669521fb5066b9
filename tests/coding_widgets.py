"""What the widgets of the weight coding lesson are tried on."""

from __future__ import annotations

import numpy as np

from labkit.encode.anatomy import Anatomy, Part
from labkit.encode.baselines import Baseline
from labkit.widgets import CodedPoint, CodingPanel, Weighed
from tests.quantization_widgets import HOSTILE

COUNTS = {"a": 40, "b": 30, "c": 15, "d": 9, HOSTILE: 6}


def some_weights(count: int = 1000) -> np.ndarray:
    """Bell-shaped, and a tenth of them zero."""
    drawn = np.random.default_rng(0).normal(size=count).astype(np.float32)
    drawn[::10] = 0
    return drawn


def weighed() -> Weighed:
    """A file of two tensors, one coded and one stored, the first with a hostile name."""
    parts = (
        Part("", "magic", 4),
        Part("", "description", 30),
        Part("", "checksum", 4),
        Part(HOSTILE, "length", 2),
        Part(HOSTILE, "head", 1),
        Part(HOSTILE, "codebook", 9),
        Part(HOSTILE, "settings", 7),
        Part(HOSTILE, "positions", 500, 499.0, 600.0),
        Part(HOSTILE, "values", 300, 299.5, 310.0),
        Part("bias", "length", 1),
        Part("bias", "head", 1),
        Part("bias", "values", 80, 61.0),
    )
    others = (
        Baseline("zlib -9, dense", 2000),
        Baseline("zlib -9, sparse", 1500),
        Baseline("zstd", None, "install"),
    )
    return Weighed(Anatomy(parts, 20_000), others)


def points() -> list[CodedPoint]:
    """Two sparsities, two levels."""
    return [
        CodedPoint(
            sparsity,
            levels,
            {"positions": size, "values": size, "stored": 50, "codebooks": 9, "frame": 40},
            accuracy,
            97.0 - accuracy,
            (96.0 - accuracy, 98.5 - accuracy),
        )
        for sparsity, levels, size, accuracy in (
            (0.5, 2, 4000, 96.0),
            (0.5, 8, 9000, 97.5),
            (0.9, 2, 1000, 70.0),
            (0.9, 8, 2000, 96.5),
        )
    ]


def panel(measure: object = None) -> CodingPanel:
    """A panel whose button makes the recorded file again, a little larger."""

    def again(sparsity: float, levels: int, progress: object) -> tuple[CodedPoint, Weighed]:
        point = next(each for each in points() if (each.sparsity, each.levels) == (sparsity, levels))
        groups = {**point.groups, "frame": 41}
        return CodedPoint(sparsity, levels, groups, 95.0, 2.0, (1.0, 3.0)), weighed()

    return CodingPanel(points(), 100_000, 97.0, measure or again)  # type: ignore[arg-type]
