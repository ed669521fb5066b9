"""What a reader is asked: which file, with which sizes bound, how thoroughly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labkit.inspection.record import Layer

UNTOLD = "the multiply-adds are not all told: {}"
"""The note beside a missing total."""


@dataclass(frozen=True)
class Request:
    """One call of `inspect_file`, as the child sees it."""

    path: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    verify_data: bool = False

    @property
    def file(self) -> Path:
        """The path as a Path."""
        return Path(self.path)


def total_macs(layers: Iterable[Layer]) -> int | None:
    """The sum over all layers, None if one of them does not tell."""
    macs = [layer.macs for layer in layers]
    return None if not macs or None in macs else sum(each for each in macs if each is not None)
