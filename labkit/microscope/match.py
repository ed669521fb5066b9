"""Which tensor of one model is which tensor of the other?

Names tell where both formats kept them, values tell everywhere: two tensors that hold the same 50,000 numbers
are the same tensor, whatever they are called. Each is compared with its namesake and with those of the same
size and about the same root mean square, as it lies and with its channels moved last or first, since formats
differ in that. The measure of agreement is the signal-to-noise ratio (labkit/quantize/noise.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit.microscope.taps import INPUT, Tap
from labkit.quantize.noise import snr_db
from labkit.variant import Array

_RMS_RATIO = 2.0  # a tensor whose root mean square is further off is another one (or is lost)
_MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Agreement:
    """How well two tensors agree: `snr_db`, and max |y′ − y| / max |y|. `layout` is what was done to y′."""

    snr_db: float
    max_rel_error: float
    layout: str = ""


NONE = Agreement(-math.inf, math.inf)


def agreement(x: Array, y: Array) -> Agreement:
    """Compare `y` with the reference `x` of the same size, in whichever layout fits best."""
    return max((_compare(x, z, layout) for layout, z in layouts(y)), key=lambda each: each.snr_db)


def layouts(y: Array) -> list[tuple[str, Array]]:
    """`y` as it is, and with the channels where the other convention has them."""
    found = [("", y)]
    if y.ndim >= 3 and y.size > y.shape[0] * max(y.shape[1], y.shape[-1]):
        found += [("channels last", np.moveaxis(y, -1, 1)), ("channels first", np.moveaxis(y, 1, -1))]
    return found


def _compare(x: Array, y: Array, layout: str) -> Agreement:
    a, b = np.ravel(x).astype(np.float64), np.ravel(y).astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return Agreement(-math.inf, math.inf, layout)
        a, b = a[finite], b[finite]
    if not a.size:
        return Agreement(math.inf, 0.0, layout)
    error, largest = np.abs(b - a), float(np.max(np.abs(a)))
    worst = float(error.max())
    return Agreement(
        snr_db(float(a @ a), float(error @ error)), worst / largest if largest else worst, layout
    )


class Matches:
    """Agreement between any tap of the reference and any of the other, computed when first asked for.

    `enough_db` ends a search: no better counterpart is looked for.
    """

    def __init__(self, reference: Sequence[Tap], other: Sequence[Tap], enough_db: float) -> None:
        self.sides = (tuple(reference), tuple(other))
        self._enough_db = enough_db
        self._known: dict[tuple[str, str], Agreement] = {}
        self._rms = [{tap.name: _rms(tap.value) for tap in side} for side in self.sides]
        self._best = [{tap.name: self._search(tap, at) for tap in side} for at, side in enumerate(self.sides)]

    def best(self, side: int, name: str) -> tuple[str | None, Agreement]:
        """The nearest tensor of the other side; (None, NONE) if none of its size comes near."""
        return self._best[side][name]

    def _search(self, tap: Tap, side: int) -> tuple[str | None, Agreement]:
        best: tuple[str | None, Agreement] = (None, NONE)
        for other in self._candidates(tap, side):
            key = (tap.name, other.name) if side == 0 else (other.name, tap.name)
            if key not in self._known:
                first, second = (tap, other) if side == 0 else (other, tap)
                self._known[key] = agreement(first.value, second.value)
            if self._known[key].snr_db > best[1].snr_db:
                best = (other.name, self._known[key])
            if best[1].snr_db >= self._enough_db:
                break
        return best

    def _candidates(self, tap: Tap, side: int) -> list[Tap]:
        """Namesakes first, then those of the nearest root mean square."""
        rms = self._rms[side][tap.name]
        alike: list[tuple[bool, float, int, Tap]] = []
        for other in self.sides[1 - side]:
            if other.value.size != tap.value.size or tap.operator == INPUT != other.operator:
                continue
            if (other.value.dtype.kind == "f") != (tap.value.dtype.kind == "f"):
                continue
            away = _distance(rms, self._rms[1 - side][other.name])
            if other.name == tap.name or away <= math.log(_RMS_RATIO):
                alike.append((other.name != tap.name, away, len(alike), other))
        return [other for *_, other in sorted(alike, key=lambda each: each[:3])[:_MOST_CANDIDATES]]


def _rms(value: Array) -> float:
    x = np.ravel(value).astype(np.float64)
    x = x[np.isfinite(x)]
    return math.sqrt(float(x @ x) / x.size) if x.size else 0.0


def _distance(a: float, b: float) -> float:
    return 0.0 if a == b else math.inf if min(a, b) == 0 else abs(math.log(a / b))
