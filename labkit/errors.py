"""Every error that labkit raises on purpose: what was given, what is allowed, what to type next.

A `LabkitError` is a message for a person. The command line prints it on one line and exits
with status 1; a panel shows it beside the form. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabkitError(Exception):
    """The base of all errors below; `str(error)` is one line meant for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(LabkitError):
    """A parameter is outside what is allowed: names the field, the value and the range."""


class TensorError(LabkitError):
    """An array does not fit the model's declared input: name, dtype, rank, shape or finiteness."""


class DataError(LabkitError):
    """A dataset is missing, damaged, or cannot be used for what was asked."""


class ModelFileError(LabkitError):
    """A model file or a saved variant cannot be read, or must not be."""


class TechniqueError(LabkitError):
    """A technique cannot be applied here, or broke its own promise."""


class ParityError(TechniqueError):
    """Two forms of one model disagree by more than the tolerance allows."""


class UnavailableError(LabkitError):
    """A runtime or package is not installed here: carries the line that installs it."""


class MeasurementError(LabkitError):
    """A measurement would not be honest: a NaN, a cheat, records that do not belong together."""


class StudyError(LabkitError):
    """A study folder cannot be read or written."""


class NotebookError(LabkitError):
    """A notebook cannot be read, built or run: `cell` (counted from 1) and `kind`, the error's own name."""

    def __init__(self, message: str, cell: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.cell, self.kind = cell, kind


class Cancelled(LabkitError):
    """Somebody pressed Stop."""

    def __init__(self, message: str = "stopped on request") -> None:
        super().__init__(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: a suggestion where one is close, and the whole list.

    nearest("resnet2", ["lenet5", "resnet20"]) → "did you mean 'resnet20'? known: lenet5, resnet20"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
