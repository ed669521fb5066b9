"""AdaRound: learn for each weight whether to round it up or down.

Rounding to nearest is best for each weight alone, and not for all together: errors that point the same way add up,
errors that cancel cost nothing. Which of the two neighbours each weight takes is a yes-or-no question for every
weight, far too many to try. AdaRound makes it a soft one (Nagel et al. 2020, sections 3.3 and 3.4):

    ŵ = scale · clamp(⌊w/scale⌋ + h(v)),    h(v) = clip(1.2 · sigmoid(v) − 0.1, 0, 1)

    minimise  tr[(Ŵ − W*) H (Ŵ − W*)ᵀ] / E + λ Σ (1 − |2 h(v) − 1|^β) / √n

by gradient descent on v. E is the error of rounding to nearest and n the number of weights: with both, λ means the
same for every layer (the paper divides by neither). The last term is largest at h = 1/2 and 0 at h = 0 or 1. β falls
from 20 to 2, so it lets the weights make up their minds at first, and then pushes every one of them to a side.
"""

from __future__ import annotations

import numpy as np
import torch

from labkit.progress import Progress
from labkit.variant import Array

_LOW, _HIGH = -0.1, 1.1
_WARM_UP = 0.2
_FIRST_BETA, _LAST_BETA = 20.0, 2.0
_LAMBDA = 0.01
_LEARNING_RATE = 0.03
STEPS = 600


def adaround(
    target: Array,
    metric: Array,
    scale: Array,
    smallest: int,
    largest: int,
    progress: Progress,
    steps: int = STEPS,
) -> Array:
    """Whole numbers q such that scale·q is close to `target` in the `metric`.

    target, scale: [groups, outputs, inputs]; metric: [groups, inputs, inputs], positive definite; zero_point is 0.
    Returns float64 of target's shape, each a whole number in smallest..largest. `progress` may cancel.
    """
    w, h, s = (torch.from_numpy(np.ascontiguousarray(each)).float() for each in (target, metric, scale))
    floor = torch.floor(w / s)
    fraction = (w / s - floor).clamp(0.01, 0.99)  # the soft rounding starts where rounding does nothing
    v = torch.logit((fraction - _LOW) / (_HIGH - _LOW)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=_LEARNING_RATE)
    unit = _nearest_error(w, h, s, smallest, largest)  # errors are counted in that of rounding to nearest
    for step in range(steps):
        soft = _soft(v)
        difference = s * (floor + soft).clamp(smallest, largest) - w
        loss = ((difference @ h) * difference).sum() / unit
        done = step / steps
        if done > _WARM_UP:
            share = (done - _WARM_UP) / (1 - _WARM_UP)
            beta = _LAST_BETA + 0.5 * (_FIRST_BETA - _LAST_BETA) * (1 + np.cos(np.pi * share))
            loss = loss + _LAMBDA * (1 - (2 * soft - 1).abs().pow(beta)).sum() / np.sqrt(soft.numel())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress(done, f"AdaRound, step {step + 1}/{steps}")
    up = (_soft(v.detach()) >= 0.5).float()
    return (floor + up).clamp(smallest, largest).double().numpy()


def _soft(v: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(v) * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _nearest_error(w: torch.Tensor, h: torch.Tensor, s: torch.Tensor, smallest: int, largest: int) -> float:
    difference = s * torch.round(w / s).clamp(smallest, largest) - w
    return max(float(((difference @ h) * difference).sum()), 1e-12)
