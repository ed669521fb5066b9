"""Each lesson ends in a decision, and the next one starts from it.

A decision says what would be shipped, which constraint decided it, and which risk remains. It is kept as
one small JSON file a lesson, under LABKIT_COURSE_DIR (results/course where that is not set).
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from labkit.errors import ConfigError
from labkit.files import read_json, write_atomically
from labkit.teach.catalogue import text

Figure = float | str | bool | None


@dataclass(frozen=True)
class LessonDecision:
    """What a lesson decided: which variant to ship, the constraint that binds, the risk, the figures."""

    lesson: str
    variant: str
    constraint: str
    risk: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def __repr__(self) -> str:
        figures = "".join(f"; {name} {value}" for name, value in self.figures.items())
        return f"{self.lesson}: ship {self.variant}; binding: {self.constraint}; risk: {self.risk}{figures}"

    def _repr_html_(self) -> str:
        words = {
            text("decision.variant"): self.variant,
            text("decision.constraint"): self.constraint,
            text("decision.risk"): self.risk,
        }
        lines = "".join(
            f"<li><strong>{html.escape(name)}</strong>: {html.escape(str(value))}</li>"
            for name, value in {**words, **self.figures}.items()
        )
        return f"<ul>{lines}</ul>"


def decision(lesson: str, *, variant: str, constraint: str, risk: str, **figures: Figure) -> LessonDecision:
    """Record what this lesson decided, replacing what it decided before; `figures` are the numbers behind it.

    Raises ConfigError if a text is empty, the lesson's name cannot be a file's, or a figure is not a finite
    number, a text, a bool or None.
    """
    made = LessonDecision(lesson, variant, constraint, risk, figures)
    for name in ("variant", "constraint", "risk"):
        if not str(getattr(made, name)).strip():
            raise ConfigError(f"decision {name}='' is empty: say it in a few words")
    path = _path(lesson)
    try:
        document = json.dumps(asdict(made), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a figure of the decision cannot be recorded: {error}; use float(…)") from None
    write_atomically(path, document.encode())
    return made


def previous_decision(lesson: str) -> LessonDecision | None:
    """What that lesson decided on this machine, or None where it has not been run to its end."""
    path = _path(lesson)
    if not path.is_file():
        return None
    document = read_json(path, ConfigError)
    try:
        return LessonDecision(**document)
    except TypeError:
        raise ConfigError(f"{path} is not a decision: delete it, and run lesson {lesson} again") from None


def _path(lesson: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", lesson):
        raise ConfigError(f"lesson={lesson!r} must be letters, digits, - and _, such as '03_quantization'")
    return Path(os.environ.get("LABKIT_COURSE_DIR") or "results/course") / f"{lesson}.json"
