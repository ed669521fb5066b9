"""What a student lacks for a class that it has never seen: not the knowledge, but the readiness to say so.

Trained without a single 3, a student learns that "3" is never the answer, and the bias of that class sinks. What 3s
look like it has learned all the same, from what the teacher said about other digits: raise the one bias again, and most
3s are found (Hinton, Vinyals and Dean 2015, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def best_offset(logits: NDArray[np.floating], target: NDArray[np.integer], classes: Sequence[int]) -> float:
    """What to add to the logits of `classes`, so that the most samples are classified rightly.

    logits: [N, C]; target: [N] class indices; classes: those whose biases move together, some but not all of C. Exact:
    a sample changes sides where its best logit among `classes` overtakes its best among the others, so only the N + 1
    stretches between these places need looking at. Of several that are equally good the widest is taken, in its middle.
    Samples that change sides at one place change together, and the place itself, where logits tie, is never taken.
    """
    inside = np.isin(np.arange(logits.shape[1]), classes)
    best = [np.where(side, logits, -np.inf) for side in (inside, ~inside)]
    turns = best[1].max(1) - best[0].max(1)
    gains = (best[0].argmax(1) == target).astype(int) - (best[1].argmax(1) == target)
    order = np.argsort(turns)
    right = np.concatenate([[0], np.cumsum(gains[order])])  # after so many samples have changed sides
    edges = np.concatenate([[turns.min() - 1], turns[order], [turns.max() + 1]])
    widths = np.diff(edges)
    right[widths == 0] = -1  # several samples change sides at once
    place = int(np.where(right == right.max(), widths, -1.0).argmax())
    return float(edges[place] + edges[place + 1]) / 2
