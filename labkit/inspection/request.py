"""What a reader is asked: which file, with which sizes bound, how thoroughly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
