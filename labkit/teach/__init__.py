"""What a lesson needs besides labkit: predict, reveal, check, claim, decide; how it is built and graded.

In a lesson:

    guess = predict("How many times smaller is the int8 file?", unit="×")   # before measuring
    guess.reveal(ratio, why="four bytes a weight became one")               # after it: how far off
    check(answer, expected=ratio, tolerance=0.05, hint="bytes before / bytes after")
    claim("int8 takes a quarter of the bytes", 3.5 < ratio < 4.1)           # every number in prose has one
    decision("03_quantization", variant="int8", constraint="memory", risk="accuracy on rare classes")
"""

from __future__ import annotations

from labkit.teach.checks import CheckResult, check, claim
from labkit.teach.course import build, stale
from labkit.teach.decisions import LessonDecision, decision, previous_decision
from labkit.teach.grading import Grade, grade
from labkit.teach.predictions import Prediction, Reveal, predict

__all__ = [
    "CheckResult",
    "Grade",
    "LessonDecision",
    "Prediction",
    "Reveal",
    "build",
    "check",
    "claim",
    "decision",
    "grade",
    "predict",
    "previous_decision",
    "stale",
]
