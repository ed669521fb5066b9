"""What is measured: variants × runtimes × batch sizes × threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.environment import current
from labkit.measure import Candidate
from labkit.runtimes import get_runtime
from labkit.variant import Variant


@dataclass(frozen=True)
class Built:
    """The variants to measure, and those that could not be made, with the reason."""

    variants: tuple[Variant, ...]
    skipped: tuple[tuple[str, str], ...]


def grid(
    variants: Sequence[Variant], runtimes: Sequence[str], batch_sizes: Sequence[int], threads: Sequence[int]
) -> list[Candidate]:
    """Every variant on every runtime that takes it and is installed, at every batch size and number of threads.

    bfloat16 is tried where the runtime offers it, the CPU has it, and the variant is not int8 already.
    """
    candidates = []
    for variant in variants:
        quantized = any(step.technique == "quantize_int8" for step in variant.lineage)
        for name in runtimes:
            runtime = get_runtime(name)
            if variant.format not in runtime.formats or not runtime.is_available().ok:
                continue
            precisions = ["float32"]
            if name == "openvino" and current().has_bf16 and not quantized:
                precisions.append("bfloat16")
            for precision in precisions:
                candidates += [
                    Candidate(variant, name, batch_size, count, precision)
                    for count in sorted(set(threads))
                    for batch_size in sorted(set(batch_sizes))
                    if variant.fixed_batch in (None, batch_size)
                ]
    return candidates
