"""k-means in one dimension: the few values that stand best for many.

    minimise Σ_i (w_i − c_a(i))²    a(i) the centroid nearest to w_i

On a line the clusters are intervals, which makes both ways below short. `lloyd` repeats: assign each weight to the
nearest centroid, move each centroid to the mean of its weights (Lloyd 1982). It starts from evenly spaced
centroids, which keep a place for the few large weights that matter most (Han, Mao and Dally 2016, section 3.2). It
may stop at a good answer that is not the best; `exact` finds the best by dynamic programming.
"""

from __future__ import annotations

import numpy as np

from labkit.progress import Progress, silent
from labkit.variant import Array

_MOST_ROUNDS = 300
_BLOCK = 64
_MOST_GROUPS = 4096


def lloyd(values: Array, count: int) -> Array:
    """At most `count` centroids, ascending: float64 [k]. values: [n], n ≥ 1. Empty clusters are left out."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    centroids = np.linspace(values[0], values[-1], count)
    sums = np.r_[0.0, np.cumsum(values)]
    for _ in range(_MOST_ROUNDS):
        edges = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        ends = np.r_[0, edges, len(values)]
        sizes = np.diff(ends)
        moved = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    found: Array = centroids[sizes > 0]
    return found


def exact(values: Array, count: int, progress: Progress = silent) -> Array:
    """The best centroids there are, ascending: float64 [k], k ≤ count. values: [n], n ≥ 1.

    cost[k, j] = min over i ≤ j of cost[k − 1, i] + what the values i … j cost around their mean; n² · k steps. Of
    more than 4,096 values, neighbours are grouped first, as many in each group: then it is the best for the groups.
    """
    values = np.sort(np.asarray(values, dtype=np.float64))
    groups = np.array_split(values, min(len(values), _MOST_GROUPS))
    weight = np.array([len(group) for group in groups], dtype=np.float64)
    middle = np.array([group.mean() for group in groups])
    n, count = len(groups), min(count, len(np.unique(middle)))
    total, first, second = (np.r_[0.0, np.cumsum(weight * middle**power)] for power in (0, 1, 2))
    cost = np.full(n + 1, np.inf)
    cost[0] = 0.0
    cuts = np.zeros((count, n + 1), dtype=np.int64)
    for k in range(count):
        progress(k / count, f"the best {count} values of {len(values):,} weights")
        fresh, low = np.full(n + 1, np.inf), k  # k clusters hold k values at least
        for begin in range(k + 1, n + 1, _BLOCK):
            ends = np.arange(begin, min(begin + _BLOCK, n + 1))
            starts = np.arange(low, ends[-1])[:, None]
            size = np.where(starts < ends, total[ends] - total[starts], np.nan)
            each = cost[starts] + second[ends] - second[starts] - (first[ends] - first[starts]) ** 2 / size
            best = np.nanargmin(each, axis=0)
            cuts[k, ends], fresh[ends] = starts[best, 0], each[best, np.arange(len(ends))]
            low = int(cuts[k, ends[-1]])  # no cut moves back as its cluster's end moves on
        cost = fresh
    centroids, end = [], n
    for k in range(count - 1, -1, -1):
        start = int(cuts[k, end])
        centroids.append((first[end] - first[start]) / (total[end] - total[start]))
        end = start
    return np.array(centroids[::-1])


def nearest(values: Array, centroids: Array) -> Array:
    """For every value the index of the nearest centroid: int64 of the same shape. centroids: [k], ascending."""
    index: Array = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)
    return index
