"""What a diagnosis may rest on: profiles, facts of the file, and trials. Nothing is concluded here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from labkit.environment import Environment
from labkit.explain.executed import LAYER
from labkit.explain.layers import Layer, ModelFile
from labkit.explain.profile import Operator, Profile
from labkit.explain.rewrite import Chain
from labkit.explain.trials import AGAINST, ITSELF, Race, Ratio

UNSIGNED, LARGER_BATCH, FILLED = "on unsigned grids", "in a larger batch", "without zeros"
ALLOWED_THREADS, ONE_THREAD = "with as many threads as allowed", "with one thread"
BASELINE_FLOAT32 = "the baseline in float32"
OWN_CHAIN, ALIGNED_CHAIN = "its channels", "aligned channels"
YARDSTICK = "yardstick"
YARDSTICK_BATCH = 8
MANY_ZEROS = 0.5

TRIALS: Mapping[str, tuple[str, float]] = {
    UNSIGNED: (ITSELF, 1.05),
    ALLOWED_THREADS: (ITSELF, 1.05),
    ONE_THREAD: (ITSELF, 1.05),
    LARGER_BATCH: (ITSELF, 1.25),
    ALIGNED_CHAIN: (OWN_CHAIN, 1.05),
    AGAINST: (BASELINE_FLOAT32, 1.05),
}
"""Entrant → whom it must beat, and by how much, to prove something: the whole interval must lie above."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one variant on one runtime: its profile, its file (None if it is no ONNX), the race, the machine.

    `chain` is the convolution of the most expensive layer whose channels are no multiple of `block`, if any.
    """

    profile: Profile
    file: ModelFile | None
    race: Race
    environment: Environment
    against: Profile | None = None
    chain: Chain | None = None

    @functools.cached_property
    def executed(self) -> tuple[tuple[Operator, Layer], ...]:
        """Every operator that computes a layer, with that layer."""
        by_name = {layer.name: layer for layer in (self.file.layers if self.file else ())}
        return tuple(
            (operator, by_name[operator.layer]) for operator in self.profile.operators if operator.layer
        )

    def layers(self, wanted: Callable[[Operator, Layer], bool]) -> Iterator[tuple[Operator, Layer]]:
        """The executed layers that are `wanted`."""
        return ((operator, layer) for operator, layer in self.executed if wanted(operator, layer))

    def proved(self, name: str) -> Ratio | None:
        """How many times faster the entrant is, if that proves something; None otherwise."""
        than, limit = TRIALS[name]
        ratio = self.race.faster(name, than)
        return ratio if ratio is not None and ratio.ci95[0] > limit else None

    @property
    def quantized(self) -> bool:
        """Whether activations are turned into whole numbers somewhere."""
        return bool(self.file and self.file.quantized)

    @property
    def is_int8(self) -> bool:
        """Whether some layer ran in integers."""
        return any(each.precision == "int8" and each.work == LAYER for each in self.profile.operators)

    @property
    def dynamic(self) -> list[Operator]:
        """The convolutions whose grids are chosen anew in every run."""
        return [each for each in self.profile.operators if each.kind == "ConvInteger"]

    @property
    def weight_only(self) -> list[Operator]:
        """The layers whose weights are on a grid and whose arithmetic is in float, if no activation is on one."""
        if self.quantized:
            return []
        found = self.layers(
            lambda each, layer: each.work == LAYER and each.precision != "int8" and bool(layer.weight_grid)
        )
        return [each for each, _ in found]

    @functools.cached_property
    def yardstick(self) -> float:
        """Multiply-adds a millisecond of a convenient layer here, in the variant's precision; inf if unknown."""
        run_ms = self.race.run_ms(YARDSTICK)
        return yardstick(self.is_int8).macs(YARDSTICK_BATCH) / run_ms if run_ms else math.inf


def unresolved(race: Race) -> dict[str, Ratio]:
    """The trials that look as if they proved something, in intervals too wide to say so."""
    found = {name: (race.faster(name, than), limit) for name, (than, limit) in TRIALS.items()}
    return {
        name: ratio
        for name, (ratio, limit) in found.items()
        if ratio is not None and ratio.value > limit >= ratio.ci95[0]
    }


def yardstick(int8: bool) -> Chain:
    """Layers of 64 channels on 16 × 16 pixels: large enough to be worth its call, small enough for the cache."""
    return Chain(64, 64, (3, 3), (16, 16), int8, pairs=1)


def block(environment: Environment) -> int:
    """How many float32 channels the processor's widest instructions take at once."""
    return 16 if "avx512f" in environment.cpu_features else 8


def unaligned(layer: Layer, channels: int) -> bool:
    """Whether a dense convolution's channels leave a rest; its few inputs (an image's) do not count."""
    if layer.channels is None or layer.channels[2] != 1:
        return False
    inputs, outputs, _ = layer.channels
    return outputs % channels != 0 or (inputs > 4 and inputs % channels != 0)
