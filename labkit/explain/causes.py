"""All causes, and the order in which they are named: by the share of the time that each accounts for."""

from __future__ import annotations

from collections.abc import Callable

from labkit.explain import causes_between as between
from labkit.explain import causes_file as file
from labkit.explain import causes_machine as machine
from labkit.explain.evidence import Evidence
from labkit.explain.finding import Finding

CAUSES: tuple[Callable[[Evidence], Finding | None], ...] = (
    file.signed_activations,
    file.float_layers,
    between.conversions,
    between.layouts,
    file.dynamic_convolutions,
    file.weight_only,
    file.unstructured_zeros,
    file.unaligned_channels,
    file.slow_integer_layers,
    between.outside_layers,
    machine.tiny_layers,
    machine.small_batch,
    machine.too_many_threads,
    machine.missing_instructions,
    machine.baseline_not_float32,
)
"""Each looks at the evidence for one cause, and is called after it."""

_WORTH_NAMING = 0.1


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Every cause that accounts for a tenth of the time or more, the largest first."""
    found = [finding for cause in CAUSES if (finding := cause(evidence)) is not None]
    return tuple(
        sorted((each for each in found if each.share >= _WORTH_NAMING), key=lambda each: -each.share)
    )
