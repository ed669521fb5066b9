"""How a variant came to be: one step after another, each with its technique, config and parents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One entry of a lineage: which technique, with which config, from which parents (digests).

    `origin` is "here" if it ran on this machine, "zoo" if it came with labkit, "file" if it was brought along.
    """

    technique: str
    config: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    origin: str = "here"


def read_step(item: Mapping[str, Any], what: str) -> Step:
    """A step from plain data; ValueError names the place, `what`, and the fault."""
    technique, config, parents, origin = (item[name] for name in ("technique", "config", "parents", "origin"))
    if not all(isinstance(text, str) for text in (technique, origin, *parents)):
        raise ValueError(f"{what}: technique, parents and origin must be texts")
    if not isinstance(config, dict) or not isinstance(parents, list):
        raise ValueError(f"{what}: config must be an object, parents a list")
    try:
        json.dumps(config, allow_nan=False)
    except ValueError:
        raise ValueError(f"{what}.config holds NaN or infinity") from None
    return Step(technique, config, tuple(parents), origin)
