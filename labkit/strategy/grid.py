"""What is measured: variants × runtimes × batch sizes × threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.environment import current
from labkit.errors import ConfigError
from labkit.measure import Candidate
from labkit.runtimes import PRECISIONS, get_runtime
from labkit.variant import Variant


@dataclass(frozen=True)
class Built:
    """The variants to measure, and those that could not be made, with the reason."""

    variants: tuple[Variant, ...]
    skipped: tuple[tuple[str, str], ...]


def grid(
    variants: Sequence[Variant],
    runtimes: Sequence[str],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    precisions: Sequence[str] = PRECISIONS,
) -> list[Candidate]:
    """Every variant on every runtime that takes it and is installed, at every batch size and number of threads.

    Of `precisions`, bfloat16 is left out where the runtime or the CPU has none, where the model is int8 already, and
    for PyTorch variants: PyTorch as it is written is what the others are compared with.
    Raises ConfigError for a variant that was exported with a fixed batch which is not among those asked for.
    """
    candidates = []
    for variant in variants:
        if variant.fixed_batch not in (None, *batch_sizes):
            raise ConfigError(
                f"{variant.name!r} takes batches of exactly {variant.fixed_batch}: ask for batch size "
                f"{variant.fixed_batch}, or export it with a free batch"
            )
        for name in runtimes:
            runtime = get_runtime(name)
            if variant.format not in runtime.formats or not runtime.is_available().ok:
                continue
            reduced = "bfloat16" in runtime.precisions and variant.format != "torch" and not variant.quantized
            offered = PRECISIONS if reduced and current().has_bf16 else ("float32",)
            for precision in (each for each in precisions if each in offered):
                candidates += [
                    Candidate(variant, name, batch_size, count, precision)
                    for count in sorted(set(threads))
                    for batch_size in sorted(set(batch_sizes))
                    if variant.fixed_batch in (None, batch_size)
                ]
    return candidates
