"""Students at many temperatures and alphas, trained before: the temperature panel's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from labkit.plots import table_html
from labkit.statistics import Interval, mean_interval
from labkit.widgets.catalogue import text

TEMPERATURE_COLUMNS = ("alpha", "temperature", "errors", "errors_ci95", "of each seed")
TRY_COLUMNS = ("try", "alpha", "temperature", "seed", "errors", "recorded nearby")


class Students(Protocol):
    """Students that differ in their seed alone, such as `labkit.teach.distilling.RecordedStudents`."""

    @property
    def temperature(self) -> float:
        """That of the teacher's answers."""

    @property
    def alpha(self) -> float:
        """The weight of the teacher's answers."""

    @property
    def errors(self) -> tuple[int, ...]:
        """How many images each student gets wrong."""

    @property
    def mean(self) -> float:
        """The mean of `errors`."""


class Sweep(Protocol):
    """Many of them, counted on the same images."""

    @property
    def images(self) -> int:
        """So many images were looked at."""

    @property
    def sweep(self) -> Sequence[Students]:
        """All settings."""

    def nearest(self, temperature: float, alpha: float) -> Students:
        """The recorded settings that are closest to these."""


def interval(students: Students) -> Interval:
    """The 95 % interval of their mean."""
    return mean_interval(np.array(students.errors, np.float64))


def temperature_says(recorded: Sweep, temperature: float, alpha: float) -> str:
    """What was recorded nearest to these settings, beside the students on labels alone, in two sentences."""
    near, alone = recorded.nearest(temperature, alpha), recorded.nearest(temperature, 0.0)
    (low, high), (alone_low, alone_high) = interval(near), interval(alone)
    return text(
        "heat.says",
        temperature=near.temperature,
        alpha=near.alpha,
        mean=near.mean,
        low=low,
        high=high,
        images=recorded.images,
        seeds=len(near.errors),
        alone=alone.mean,
        alone_low=alone_low,
        alone_high=alone_high,
    )


def temperature_table(recorded: Sweep) -> str:
    """An HTML table with TEMPERATURE_COLUMNS: all that was recorded."""
    rows = [
        (each.alpha, each.temperature, each.mean, interval(each), ", ".join(map(str, each.errors)))
        for each in recorded.sweep
    ]
    return table_html([dict(zip(TEMPERATURE_COLUMNS, row, strict=True)) for row in rows], TEMPERATURE_COLUMNS)


def tries_table(recorded: Sweep, tries: Sequence[tuple[Any, int, int]]) -> str:
    """An HTML table with TRY_COLUMNS: what was measured here, each (settings, seed, errors), beside the recording."""
    rows = []
    for number, (settings, seed, errors) in enumerate(tries, 1):
        near = recorded.nearest(settings.temperature, settings.alpha)
        row = (number, settings.alpha, settings.temperature, seed, errors, near.mean)
        rows.append(dict(zip(TRY_COLUMNS, row, strict=True)))
    return table_html(rows, TRY_COLUMNS)
