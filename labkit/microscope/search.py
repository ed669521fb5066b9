"""Where does the error come in? A search over two graphs at once.

A tensor is *good* if the other model has it too, within what the number format explains. One that is not may
still be harmless: the other model fused operators and never writes it down. Then something computed *from* it
is good again, so it is *recovered*. What is neither is *lost*, and so is, as a rule, all that comes after it.
The operator to look at stands at the front: its result is lost, and all that it reads is not.

The same search over the other model finds the other's operator at the front, and the two fronts together tell
more than either: an operator that was left out, put in, or exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from labkit.microscope.kinds import kind, transparent
from labkit.microscope.match import Agreement, Matches
from labkit.microscope.taps import Tap

_MUTUAL_DB = 6.0  # by so much another tensor must fit a counterpart better to take it away
_NEAR_KIN = 3
_LONGEST_CHAIN = 8


@dataclass(frozen=True)
class Scale:
    """What is asked of two tensors, in dB, so that they count as the same.

    `cap_db` is what the number format gives when all is well; more is not worth more. Below `limit_db` a
    tensor departs. A result above `sure_db` proves that nothing was lost before it. `step_db` is the least
    that one operator must add to be named. Where rounding is coarse (`merges` False), a sum with another branch
    proves nothing: the branch may have drowned the error.
    """

    name: str
    cap_db: float
    limit_db: float
    sure_db: float
    step_db: float
    max_rel_error: float
    merges: bool


FLOAT = Scale("float", 120.0, 100.0, 115.0, 10.0, 1e-4, True)
"""float32 sums in another order agree to 125 dB and more; float16 weights give 70 dB."""

QUANTIZED = Scale("quantized", 40.0, 15.0, 25.0, 6.0, math.inf, False)
"""Eight bits well used give 40 dB; below 15 dB a tensor has lost its shape (labkit/quantize/noise.py)."""


class Side:
    """One of the two models: 0 the reference, 1 the other."""

    def __init__(self, matches: Matches, at: int, scale: Scale) -> None:
        self.matches, self.at, self.scale = matches, at, scale
        self.taps: dict[str, Tap] = {tap.name: tap for tap in matches.sides[at]}
        self.place = {name: place for place, name in enumerate(self.taps)}
        self.consumers: dict[str, list[str]] = {name: [] for name in self.taps}
        for tap in self.taps.values():
            for name in tap.inputs:
                self.consumers[name].append(tap.name)
        self.level_db = self._levels()
        self.good = {name for name in self.taps if self._is_good(name)}
        self.recovered = self._recovered()
        self.front = [
            tap
            for tap in self.taps.values()
            if self.lost(tap.name) and not any(self.lost(name) for name in tap.inputs)
        ]

    def lost(self, name: str) -> bool:
        """Neither equal nor recovered."""
        return name not in self.good and name not in self.recovered

    def counterpart(self, name: str) -> tuple[str | None, Agreement]:
        """The nearest tensor of the other model, unless quite another tensor of this one fits it better."""
        other, found = self.matches.best(self.at, name)
        if other is None:
            return None, found
        rival, back = self.matches.best(1 - self.at, other)
        cap = self.scale.cap_db
        close = min(found.snr_db, cap) >= min(back.snr_db, cap) - _MUTUAL_DB
        rounded = found.snr_db >= self.scale.limit_db and self._kin(name, str(rival))
        return (other, found) if close or rounded else (None, found)

    def _kin(self, name: str, rival: str) -> bool:
        """Whether one of the two was made from the other alone, as a rounded tensor from the unrounded."""
        for start, end in ((name, rival), (rival, name)):
            for _ in range(_NEAR_KIN):
                inputs = self.taps[start].inputs
                if len(inputs) != 1:
                    break
                start = inputs[0]
                if start == end:
                    return True
        return False

    def _levels(self) -> dict[str, float]:
        """Name → SNR against the counterpart, at most `cap_db`; that of the worst input if it has none."""
        found: dict[str, float] = {}
        for tap in self.taps.values():
            other, agreement = self.counterpart(tap.name)
            before = min((found[name] for name in tap.inputs), default=self.scale.cap_db)
            found[tap.name] = before if other is None else min(agreement.snr_db, self.scale.cap_db)
        return found

    def before_db(self, tap: Tap) -> float:
        """The worst level of what `tap` reads."""
        return min((self.level_db[name] for name in tap.inputs), default=self.scale.cap_db)

    def before_error(self, tap: Tap) -> float:
        """The largest max_rel_error of what `tap` was computed from."""
        found = (self.counterpart(name)[1].max_rel_error for name in sources(self, tap))
        return max(found, default=0.0)

    def loss_db(self, tap: Tap) -> float:
        """How much `tap` loses: up to the first tensor from it on that has a counterpart; infinite if none has."""
        for each in self.chain(tap):
            if self.counterpart(each.name)[0] is not None:
                return self.before_db(tap) - self.level_db[each.name]
        return math.inf

    def _is_good(self, name: str) -> bool:
        other, found = self.counterpart(name)
        within = found.snr_db >= self.scale.limit_db and found.max_rel_error <= self.scale.max_rel_error
        return other is not None and within

    def _recovered(self) -> set[str]:
        """All from which something good was computed, or something recovered."""
        found: set[str] = set()
        for tap in reversed(self.taps.values()):
            _, agreement = self.counterpart(tap.name)
            proof = tap.name in self.good and agreement.snr_db >= self.scale.sure_db
            proof = proof and tap.value.dtype.kind == "f" and tap.value.size > len(tap.value)
            if (proof or tap.name in found) and (self.scale.merges or self._float_inputs(tap) == 1):
                found.update(tap.inputs)
        return found

    def _float_inputs(self, tap: Tap) -> int:
        return sum(self.taps[name].value.dtype.kind == "f" for name in tap.inputs)

    def ancestors(self, name: str) -> Iterator[Tap]:
        """The tap itself and all that it depends on, the last computed first."""
        wanted = {name}
        for tap in reversed(self.taps.values()):
            if tap.name in wanted:
                wanted.update(tap.inputs)
                yield tap

    def chain(self, tap: Tap) -> list[Tap]:
        """`tap` and what follows it, first users first; operators that hand their input on are passed over."""
        found = [tap]
        while len(found) < _LONGEST_CHAIN:
            users = [self.taps[name] for name in self.consumers[found[-1].name]]
            if not users:
                break
            found.append(users[0])
        return [each for each in found if each is tap or not transparent(each)]


def first_front(reference: Side, other: Side) -> tuple[Tap | None, Tap | None]:
    """The operators at the front of the reference and of the other that belong together.

    Where what is lost was already being lost before (its step is small), the largest step before it is taken.
    """
    if not reference.front:
        return None, None
    first = _largest_step(reference, reference.front[0])
    if first is None:
        return None, None
    fronts = [_largest_step(other, tap) or tap for tap in other.front]
    reads = sources(reference, first)
    named = [
        tap for tap in fronts if kind(tap) == kind(first) and {tap.name, tap.node} & {first.name, first.node}
    ]
    near = sorted(
        fronts,
        key=lambda tap: (
            -len(reads & translated(other, tap)),
            kind(tap) != kind(first),
            other.place[tap.name],
        ),
    )
    return first, next(iter(named or near), None)


def _largest_step(side: Side, tap: Tap) -> Tap | None:
    """Of `tap` and all before it, the one that loses most; None if none loses enough to be named."""
    losses = {each.name: side.loss_db(each) for each in side.ancestors(tap.name)}
    largest = max(losses, key=lambda name: (losses[name], -side.place[name]))
    if losses[tap.name] >= losses[largest] - side.scale.step_db / 2:
        largest = tap.name
    return side.taps[largest] if losses[largest] >= side.scale.step_db else None


def sources(side: Side, tap: Tap) -> set[str]:
    """The good tensors that `tap` was computed from, looking through what was fused."""
    found: set[str] = set()
    for name in tap.inputs:
        found |= {name} if name in side.good else sources(side, side.taps[name])
    return found


def translated(side: Side, tap: Tap) -> set[str]:
    """`sources`, by the names that they have in the other model."""
    return {other for name in sources(side, tap) if (other := side.counterpart(name)[0]) is not None}
