"""Checks that encourage, and claims that hold.

A check compares a reader's answer with what was measured. It has three outcomes, and raises for none of them:
"not yet" (no answer so far), "not quite" (with a hint) and "right". So a lesson that nobody has answered runs
from top to bottom. A claim is the opposite: it ties a sentence of the lesson to a cell, and stops the lesson
where the sentence is not true on this machine.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.errors import ConfigError
from labkit.teach.catalogue import text

_NUMBERS = "iuf"  # NumPy's kinds; a bool is none


@dataclass(frozen=True)
class CheckResult:
    """How an answer stands: `status` is "right", "not quite" or "not yet"; `message` is for the reader."""

    status: str
    message: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == "right"

    def __repr__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        return f"<p><strong>{html.escape(self.message)}</strong></p>"


def check(answer: Any, expected: Any, *, tolerance: float = 0.0, hint: str = "") -> CheckResult:
    """Compare `answer` with `expected`; None means that nobody has answered yet.

    A number or an array is right within ± `tolerance`, in its own unit; anything else must be equal. Where
    many answers are right, `expected` is a function: answer → whether it is right. A check raises nothing,
    whatever the answer is.
    """
    if answer is None:
        return CheckResult("not yet", text("check.not yet"))
    shown = _short(answer)
    try:
        right = bool(expected(answer)) if callable(expected) else _close(answer, expected, tolerance)
    except Exception as error:  # an answer may be anything, and so may what it raises
        return CheckResult("not quite", text("check.impossible", answer=shown, error=error, hint=hint))
    if right:
        return CheckResult("right", text("check.right", answer=shown))
    return CheckResult("not quite", text("check.not quite", answer=shown, hint=hint))


def claim(sentence: str, truth: Any) -> None:
    """Print the sentence with a tick if it is true; otherwise raise AssertionError, and the lesson stops.

    truth: True or False, Python's or NumPy's. Raises ConfigError for anything else: a pair in brackets, say,
    counts as true whatever it holds.
    """
    if not isinstance(truth, (bool, np.bool_)):
        raise ConfigError(f"claim({sentence!r}) was given a {type(truth).__name__}: pass a comparison")
    if not truth:
        raise AssertionError(f"not true here: {sentence}")
    print(text("claim", claim=sentence))


def _close(answer: Any, expected: Any, tolerance: float) -> bool:
    """Whether the shapes agree, both are numbers or neither, and each element is within ± tolerance."""
    given, wanted = np.asarray(answer), np.asarray(expected)
    if given.shape != wanted.shape:
        raise ValueError(f"its shape is {given.shape}, not {wanted.shape}")
    if (given.dtype.kind in _NUMBERS) != (wanted.dtype.kind in _NUMBERS):
        return False
    if wanted.dtype.kind in _NUMBERS:
        return bool(
            np.all(np.abs(given.astype(np.float64) - wanted) <= tolerance)
        )  # a NaN is close to nothing
    return bool(np.all(given == wanted))


def _short(answer: Any) -> str:
    shown = " ".join(str(answer).split())
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
