"""The methods of the commands that change a model: `labkit COMMAND MODEL --method METHOD` applies which technique."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, Mapping[str, str]] = {
    "quantize": {
        "int8": "quantize_int8",
        "dynamic": "quantize_dynamic",
        "weights": "quantize_weights",
        "half": "store_half",
        "mixed": "quantize_mixed",
        "aware": "quantize_aware",
        "equalize": "equalize",
    },
    "prune": {
        "magnitude": "prune_magnitude",
        "weights": "prune_weights",
        "channels": "prune_channels",
        "dead": "remove_dead_units",
    },
    "distill": {
        "soft_targets": "distill",
        "logits": "distill_logits",
        "hints": "distill_hints",
        "attention": "distill_attention",
        "decoupled": "distill_decoupled",
        "self": "distill_self",
    },
    "encode": {"cluster": "cluster_weights", "low_rank": "factorize_low_rank"},
}
"""Command → method → the technique's name. The first method of each is its default."""


def command_of(technique: str) -> tuple[str, str]:
    """The command and the method that apply `technique`; a technique that is a command itself has no method, ""."""
    for command, methods in METHODS.items():
        for method, name in methods.items():
            if name == technique:
                return command, method
    return technique, ""
