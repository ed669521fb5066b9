"""Where the boxes of a graph stand: a layered layout, after Sugiyama, Tagawa and Toda (1981).

1. Rank: a box stands one row below the lowest of its parents (the longest path from the inputs).
2. An arrow that skips rows gets a place in every row that it passes, so that it goes around the boxes there;
   all arrows from one box share these places.
3. Order within a row: by the mean position of the parents; a passing arrow stands right of its rivals.
4. Position: each box wants to stand below its parents, and has to keep its distance. The least squares under
   that condition are found by pooling neighbours who are too close. The longest way onward weighs most, so that
   the spine of a network is a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SPINE, _BRANCH, _PASSING = 1.0, 0.01, 0.0001  # how strongly each insists on its wish


@dataclass(frozen=True)
class Layout:
    """For each box its row and centre; `arrows` are the points (x, row) that each line goes through.

    A line begins or ends at a box, or, where it only passes, in the middle of a row; `boxed` says which.
    """

    rows: tuple[int, ...]
    centres: tuple[float, ...]
    arrows: tuple[tuple[tuple[float, int, bool], ...], ...]


@dataclass(eq=False)
class _Place:
    """A box (`box` is its index) or a passing arrow in a row."""

    box: int | None
    weight: float
    parents: tuple[_Place, ...] = ()
    x: float = 0.0


def layout(parents: Sequence[Sequence[int]], box_width: float, gap: float) -> Layout:
    """Places for len(parents) boxes; parents[i] are those that box i hangs below. A circle is cut somewhere."""
    order = parents_first(parents)
    position = {box: index for index, box in enumerate(order)}
    parents = [sorted({p for p in above if position[p] < position[box]}) for box, above in enumerate(parents)]
    children: list[list[int]] = [[] for _ in parents]
    for box, above in enumerate(parents):
        for parent in above:
            children[parent].append(box)
    rows, heights = [0] * len(parents), [0] * len(parents)
    for box in order:
        rows[box] = max((rows[parent] + 1 for parent in parents[box]), default=0)
    for box in reversed(order):
        heights[box] = max((heights[child] + 1 for child in children[box]), default=0)
    spine = {
        child
        for below in children
        for child in below
        if heights[child] == max(heights[other] for other in below)
    }
    places = [
        _Place(box, _SPINE if box in spine or not parents[box] else _BRANCH) for box in range(len(parents))
    ]
    passing = _passing(places, rows, children)
    by_row: list[list[_Place]] = [[] for _ in range(max(rows, default=-1) + 1)]
    for box in order:
        by_row[rows[box]].append(places[box])
        places[box].parents = tuple(
            passing.get((parent, rows[box] - 1), places[parent]) for parent in parents[box]
        )
    for (_, row), place in passing.items():
        by_row[row].append(place)
    for placed in by_row:
        _arrange(placed, box_width, gap, heights)
    return Layout(tuple(rows), tuple(place.x for place in places), _arrows(places, rows, children, passing))


def parents_first(parents: Sequence[Sequence[int]]) -> list[int]:
    """All boxes, parents first; in a circle, which a damaged file may hold, the one that comes first in the file."""
    waiting = [len(set(above)) for above in parents]
    children: dict[int, list[int]] = {}
    for box, above in enumerate(parents):
        for parent in set(above):
            children.setdefault(parent, []).append(box)
    order: list[int] = []
    done: set[int] = set()
    for start in sorted(range(len(parents)), key=lambda box: waiting[box] > 0):
        ready = [start]
        while ready:
            box = ready.pop()
            if box in done:
                continue
            done.add(box)
            order.append(box)
            for child in children.get(box, ()):
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
    return order


def _passing(
    places: Sequence[_Place], rows: Sequence[int], children: Sequence[Sequence[int]]
) -> dict[tuple[int, int], _Place]:
    """(box, row) → the place where the arrows from a box pass a row that none of its own is in."""
    passing: dict[tuple[int, int], _Place] = {}
    for box, below in enumerate(children):
        above = places[box]
        for row in range(rows[box] + 1, max((rows[child] for child in below), default=0)):
            above = passing[box, row] = _Place(None, _PASSING, (above,))
    return passing


def _arrange(row: list[_Place], box_width: float, gap: float, heights: Sequence[int]) -> None:
    """Order a row by its parents' means, then place each as near to its wish as the distances allow."""

    def rival(place: _Place) -> tuple[float, bool, int]:
        height = 0 if place.box is None else heights[place.box]
        return _mean([parent.x for parent in place.parents]), place.box is None, -height

    row.sort(key=rival)
    offsets: list[float] = []
    offset = before = 0.0
    for place in row:
        half = box_width / 2 if place.box is not None else 0.0
        offset += (before + gap + half) if offsets else 0.0
        offsets.append(offset)
        before = half
    # With the distances taken off, the places need only not to fall: that is isotonic regression.
    pools: list[tuple[float, float, int]] = []
    for place, offset in zip(row, offsets, strict=True):
        pools.append((_wish(place) - offset, place.weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, low_weight, low_count), (high, high_weight, high_count) = pools[-2:]
            weight = low_weight + high_weight
            mean = (low * low_weight + high * high_weight) / weight
            pools[-2:] = [(mean, weight, low_count + high_count)]
    level = [mean for mean, _, count in pools for _ in range(count)]
    for place, base, offset in zip(row, level, offsets, strict=True):
        place.x = base + offset


def _wish(place: _Place) -> float:
    """Below those parents that are boxes of the row above, or below the arrows that come down to it."""
    boxes = [parent.x for parent in place.parents if parent.box is not None]
    return _mean(boxes or [parent.x for parent in place.parents])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _arrows(
    places: Sequence[_Place],
    rows: Sequence[int],
    children: Sequence[Sequence[int]],
    passing: Mapping[tuple[int, int], _Place],
) -> tuple[tuple[tuple[float, int, bool], ...], ...]:
    """One line a child: the first from a box goes all the way, the others branch off from it where they must."""
    lines = []
    for box, below in enumerate(children):
        drawn = rows[box]
        for child in sorted(below, key=lambda each: rows[each], reverse=True):
            row = rows[child]
            first = rows[box] if drawn == rows[box] else row - 1
            through = [_point(places[box], passing, box, each, rows) for each in range(first, row)]
            lines.append((*through, (places[child].x, row, True)))
            drawn = max(drawn, row)
    return tuple(lines)


def _point(
    place: _Place, passing: Mapping[tuple[int, int], _Place], box: int, row: int, rows: Sequence[int]
) -> tuple[float, int, bool]:
    """Where the arrows from `box` are in a row: at its foot, or passing."""
    return (place.x, row, True) if row == rows[box] else (passing[box, row].x, row, False)
