"""GPTQ: round one input after the other, and let those that are still free make up for it.

After the weights of input j are rounded, each output is off by err = (w_j − ŵ_j). The inputs that follow are
correlated with j (the metric H says how), so changing their weights can undo part of it. The best change is

    w_k ← w_k − err / [H⁻¹]_jj · [H⁻¹]_jk        for all k that are still free

and the factors are the rows of the Cholesky factor U of H⁻¹ = UᵀU (Frantar et al. 2023, section 3.3). All outputs
share H, so a whole column is done at once.

`descend` goes on from there: it moves one weight at a time to where the error is least, until no move helps.
"""

from __future__ import annotations

import numpy as np

from labkit.variant import Array

_MOST_SWEEPS = 30


def gptq(target: Array, metric: Array, scale: Array, smallest: int, largest: int) -> Array:
    """Whole numbers q such that scale·q is close to `target` in the `metric`.

    target, scale: [groups, outputs, inputs]; metric: [groups, inputs, inputs], positive definite; zero_point is 0.
    Returns float64 of target's shape, each a whole number in smallest..largest.
    """
    q = np.empty(target.shape)
    for group in range(len(target)):
        order = np.argsort(-np.diag(metric[group]), kind="stable")  # the inputs that matter most go first
        factors = np.linalg.cholesky(np.linalg.inv(metric[group][np.ix_(order, order)])).T
        weight, steps = target[group][:, order].copy(), scale[group][:, order]
        for j in range(len(order)):
            q[group, :, order[j]] = np.clip(np.rint(weight[:, j] / steps[:, j]), smallest, largest)
            err = (weight[:, j] - steps[:, j] * q[group, :, order[j]]) / factors[j, j]
            weight[:, j + 1 :] -= err[:, None] * factors[j, j + 1 :]
    return q


def descend(q: Array, target: Array, metric: Array, scale: Array, smallest: int, largest: int) -> Array:
    """Improve whole numbers, one input at a time, until none can be moved to advantage; shapes as in `gptq`.

    With all others held, the error is a parabola in q_j: its lowest whole number is taken (coordinate descent). No
    step makes the error larger, so whatever is given comes out as good or better.
    """
    q = q.copy()
    for group in range(len(q)):
        slope = (scale[group] * q[group] - target[group]) @ metric[group]  # half the gradient by the weights
        for _ in range(_MOST_SWEEPS):
            moved = False
            for j in range(q.shape[2]):
                best = q[group, :, j] - slope[:, j] / (scale[group][:, j] * metric[group][j, j])
                step = np.clip(np.rint(best), smallest, largest) - q[group, :, j]
                if step.any():
                    moved = True
                    q[group, :, j] += step
                    slope += (scale[group][:, j] * step)[:, None] * metric[group][j]
            if not moved:
                break
    return q
