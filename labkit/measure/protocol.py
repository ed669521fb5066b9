"""How long to measure: the protocols from a first look to a comparison that is to be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labkit.errors import ConfigError
from labkit.measure.lock import DEFAULT_TIMEOUT_S

FEWEST_PAIRED_BLOCKS = 10

_RANGES: dict[str, tuple[type, float, float]] = {
    "blocks": (int, 2, 1000),
    "block_ms": (float, 0.01, 60_000.0),
    "warmup_ms": (float, 0.0, 60_000.0),
    "min_runs_per_block": (int, 1, 10_000),
    "max_runs_per_block": (int, 1, 10_000),
    "lock_timeout_s": (float, 0.0, 3600.0),
}


@dataclass(frozen=True)
class Protocol:
    """How long to measure. A block holds as many runs as fill `block_ms`, within the least and most allowed.

    The defaults support p95 (12 blocks of 5 runs are 60; 59 are needed) and an interval on a ratio; p99 needs
    299 runs, so 25 a block. `lock_timeout_s` is how long to wait for the machine before going on regardless.
    Raises ConfigError if a field is out of range.
    """

    blocks: int = 12
    block_ms: float = 30.0
    warmup_ms: float = 60.0
    min_runs_per_block: int = 5
    max_runs_per_block: int = 1000
    lock_timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _RANGES.items():
            value = getattr(self, name)
            if type(value) not in (kind, int) or not low <= value <= high:
                number = "a whole number" if kind is int else "a number"
                raise ConfigError(
                    f"Protocol.{name}={value!r} must be {number} in {low:g} ≤ {name} ≤ {high:g}"
                )
        if self.max_runs_per_block < self.min_runs_per_block:
            raise ConfigError(
                f"Protocol.max_runs_per_block={self.max_runs_per_block} must be at least "
                f"min_runs_per_block={self.min_runs_per_block}"
            )

    @classmethod
    def paired(cls) -> Protocol:
        """For a comparison that is to be believed: the defaults."""
        return cls()

    @classmethod
    def brief(cls) -> Protocol:
        """The least from which a ratio is given an interval: ten short blocks. For tests and first looks."""
        return cls(blocks=FEWEST_PAIRED_BLOCKS, block_ms=5.0, warmup_ms=10.0, min_runs_per_block=1)

    @classmethod
    def quick(cls) -> Protocol:
        """For screening many candidates, to see which deserve a comparison."""
        return cls(blocks=4, block_ms=15.0, warmup_ms=20.0, min_runs_per_block=2)

    def runs_per_block(self, run_ms: float) -> int:
        """How many runs of `run_ms` fill a block."""
        filling = math.ceil(self.block_ms / max(run_ms, 1e-6))
        return min(max(filling, self.min_runs_per_block), self.max_runs_per_block)
