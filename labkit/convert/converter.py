"""Converter: the technique that changes a model's format and nothing else, with the proof that it did not.

An author writes `convert`, which returns the new model. The template checks that the packages are here, compares
both forms on samples at batches 1, 3 and 7, and refuses a result that departs by more than rounding explains.
"""

from __future__ import annotations

import contextlib
import contextvars
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.parity import ParityReport, parity, tolerance
from labkit.data import Dataset
from labkit.errors import ParityError, TechniqueError, UnavailableError
from labkit.progress import Progress, part
from labkit.runtimes import Availability, is_installed
from labkit.technique import Technique, knob
from labkit.variant import Variant

_listeners: contextvars.ContextVar[list[ParityReport] | None] = contextvars.ContextVar(
    "reports", default=None
)


@contextlib.contextmanager
def listening() -> Iterator[list[ParityReport]]:
    """Collect the parity reports of all conversions inside the `with` block."""
    reports: list[ParityReport] = []
    token = _listeners.set(reports)
    try:
        yield reports
    finally:
        _listeners.reset(token)


@dataclass(frozen=True)
class Converter(Technique):
    """One edge of the format graph: from one of the formats that it `takes` to `target`.

    `verified` says that somebody has seen it run, `reproducible` that the same model gives the same bytes.
    """

    target: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = "pip install labkit"
    verified: ClassVar[bool] = True
    reproducible: ClassVar[bool] = True

    tolerance: float | None = knob(
        None,
        "largest error, as a share of the largest output; by itself what the precision's rounding explains",
        above=0.0,
        max=1.0,
        kw_only=True,
    )
    keep: bool = knob(False, "keep a result whose error exceeds it", kw_only=True)

    @property
    def precision(self) -> str:
        """The precision of the result's arithmetic, which its tolerance follows from."""
        return "float32"

    @classmethod
    def is_available(cls) -> Availability:
        """Whether the packages that do the work are installed here; if not, which, and the line to install them."""
        missing = [package for package in cls.packages if not is_installed(package)]
        if missing:
            return Availability(False, f"the package {missing[0]} is not installed", cls.install)
        return Availability(True)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also say which package is missing."""
        super().requires(variant, dataset)
        available = self.is_available()
        if not available.ok:
            raise UnavailableError(f"{self.name} cannot be used: {available.reason}; {available.install}")

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Convert, then compare: on `dataset`'s training samples, or on random ones."""
        progress(0.0, self.title)
        changes = self.convert(variant, dataset, part(progress, 0.0, 0.8, ""))
        if "inputs" in changes:  # under other names, and so is how they are prepared
            pairs = zip(variant.inputs, changes["inputs"], strict=True)
            prepared = {new.name: variant.preprocessing.get(old.name) for old, new in pairs}
            changes["preprocessing"] = {name: each for name, each in prepared.items() if each is not None}
        result = variant.derive(variant.name, self.step(variant), format=self.target, **changes)
        progress(0.8, "comparing the outputs")
        report = parity(variant, result, dataset)
        reports = _listeners.get()
        if reports is not None:
            reports.append(report)
        try:
            report.check(self.tolerance or tolerance(self.precision))
        except ParityError:
            if not self.keep:
                raise
        progress(1.0, "converted")
        return result

    @abstractmethod
    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """The fields of the new variant: `model`, and `inputs` and `outputs` where their names are others."""


def paired(found: Sequence[str], expected: Sequence[str], what: str) -> dict[str, str]:
    """{name found: name expected}: by name where all are there, else by position; TechniqueError if they differ."""
    if len(found) != len(expected):
        raise TechniqueError(f"the converted model has {len(found)} {what}, the original {len(expected)}")
    if set(found) == set(expected):
        return {name: name for name in found}
    return dict(zip(found, expected, strict=True))
