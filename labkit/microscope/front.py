"""What happened at the front: was an operator left out, put in, exchanged, or are several fused into one?

Formats write the same work in different numbers of operators. A convolution takes the batch normalisation
behind it into its weights; LiteRT takes the activation too, and pads in an operator of its own; OpenVINO adds
the bias in one. So it is not enough to lay the two operators at the front side by side: the chains that begin
with them are aligned by the kinds of their operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.microscope.kinds import kind
from labkit.microscope.search import Side
from labkit.microscope.taps import Tap

_MOST_PUT_IN = 4


@dataclass(frozen=True)
class Front:
    """The stretches of both models that do the same work differently; `change` as in report.Departure."""

    change: str
    mine: Sequence[Tap]
    theirs: Sequence[Tap]


def stretches(reference: Side, first: Tap, other: Side, second: Tap | None) -> Front:
    """What belongs to the front: was an operator left out, put in, exchanged, or are several fused?

    Names decide where both models have them. Else it is whatever makes both go on alike for longest.
    """
    if second is None:
        return Front("left out", [first], [])
    a, b = reference.chain(first), other.chain(second)
    more = range(1, _MOST_PUT_IN + 1)
    put_in, left_out = (
        next((k for k in more if _namesakes(*pair, k)), 0) for pair in ((first, b), (second, a))
    )
    if not put_in and not left_out:
        if _weighted(a) == _weighted(b):
            return Front("", *_fused(a, b))
        put_in, left_out = _shift(a, b)
    if put_in and left_out:
        return Front("", a[:1], b[:1])
    return Front("put in", [], b[:put_in]) if put_in else Front("left out", a[:left_out], [])


def _weighted(chain: Sequence[Tap]) -> str:
    """The kind that a chain begins with, looking through padding: some formats pad in an operator of its own."""
    return next(kind(tap) for tap in chain if kind(tap) != "pad" or tap is chain[-1])


def _namesakes(tap: Tap, chain: Sequence[Tap], place: int) -> bool:
    """Whether the same kind of operator has the name of `tap` at that place."""
    return any(
        kind(tap) == kind(each) and (tap.node == each.node or tap.name == each.name)
        for each in chain[place : place + 1]
    )


def _shift(a: Sequence[Tap], b: Sequence[Tap]) -> tuple[int, int]:
    """How many operators `b` begins with that `a` lacks, and the reverse; (1, 1) if one was exchanged.

    What makes both go on alike for longest is taken, and of those what needs the fewest operators.
    """
    places = [_skeleton(chain) for chain in (a, b)]
    kinds = [[kind(chain[place]) for place in kept] for chain, kept in zip((a, b), places, strict=True)]
    more = range(1, _MOST_PUT_IN + 1)
    ways = [(1, 1), *((0, k) for k in more), *((k, 0) for k in more)]
    i, j = max(ways, key=lambda way: (_common(kinds[0][way[0] :], kinds[1][way[1] :]), -sum(way)))
    if i and j:
        return 1, 1
    return (
        (places[1][j], 0)
        if j and j < len(places[1])
        else (0, places[0][i])
        if i and i < len(places[0])
        else (1, 1)
    )


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """For how many words two lists are the same."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _skeleton(chain: Sequence[Tap]) -> list[int]:
    """Places of the operators that no format fuses into the one before: not normalisation, bias, activation."""
    kept: list[int] = []
    for place, tap in enumerate(chain):
        after = kind(chain[kept[-1]]) if kept else ""
        bias = kind(tap) in ("norm", "add", "multiply") and after in ("conv", "gemm")
        activation = kind(tap) in ("relu", "clip") and after in (
            "conv",
            "gemm",
            "add",
            "subtract",
            "multiply",
        )
        if not (len(tap.inputs) == 1 and (bias or activation)):
            kept.append(place)
    return kept


def _fused(a: Sequence[Tap], b: Sequence[Tap]) -> tuple[Sequence[Tap], Sequence[Tap]]:
    """The shortest beginnings of both after which both go on alike: Conv, BatchNorm | Relu and Conv | Relu."""
    lengths = [(i, j) for i in range(1, len(a) + 1) for j in range(1, len(b) + 1)]
    for ahead in (2, 1):
        for i, j in sorted(lengths, key=sum):
            if [kind(tap) for tap in a[i : i + ahead]] == [kind(tap) for tap in b[j : j + ahead]]:
                return a[:i], b[:j]
    return a[:1], b[:1]
