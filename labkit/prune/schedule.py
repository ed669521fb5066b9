"""When weights go: at once, in rounds, or little by little while the network trains.

A network that loses 98 % of its weights in one blow has little left to be mended. Two ways are gentler: prune a
share of what is left, train, and do so again (Han et al. 2015); or let the sparsity s rise during one training,

    s(t) = s_f + (s_i − s_f) · (1 − t/T)³

fast at first, while there is plenty to spare, and slower as it gets scarce (Zhu and Gupta 2017, eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from labkit.prune.masks import prunable_weights, silence, sparsity_of
from labkit.prune.scores import Criterion, Weights, gradients

SCHEDULES = ("one_shot", "iterative", "gradual")
_UPDATES = 100
Choose = Callable[[Weights, Sequence[Tensor], float], list[Tensor]]
"""(weights, scores, sparsity) → masks, True for what goes."""


def cubic(passed: float, start: float, end: float) -> float:
    """The sparsity when `passed` (0 to 1, held beyond) of the ramp from `start` to `end` is over."""
    return end + (start - end) * (1 - min(passed, 1.0)) ** 3


def in_rounds(start: float, end: float, rounds: int) -> list[float]:
    """The sparsity of each round, from which the next keeps always the same share; the last is exactly `end`."""
    kept = [(1 - start) * ((1 - end) / (1 - start)) ** (k / rounds) for k in range(1, rounds)]
    return [*(1 - share for share in kept), end]


class Gradual:
    """What runs after each step of a training (`labkit.train.Hook`) and makes the network sparser along `cubic`.

    With `regrow`, what is cut may come back while the sparsity rises: behind each zero the weight goes on, moved by
    the gradient that the zero gets, and is scored like all others (dynamic network surgery, Guo et al. 2016).
    Without, what is gone is gone. After `ramp_steps` steps the masks stay.
    """

    def __init__(
        self,
        module: nn.Module,
        criterion: Criterion,
        choose: Choose,
        sparsity: float,
        ramp_steps: int,
        regrow: bool = True,
    ) -> None:
        self.criterion, self.choose, self.regrow = criterion, choose, regrow
        self.sparsity, self.ramp_steps = sparsity, ramp_steps
        self.every = max(1, ramp_steps // _UPDATES)
        self.behind = [weight.detach().clone() for weight in prunable_weights(module)]
        self.masks = [weight == 0 for weight in self.behind]
        self.start = min(sparsity, sparsity_of(self.behind))
        self.steps = 0

    def __call__(self, module: nn.Module) -> None:
        """Take over what the step did, choose anew if it is time, and zero what is to be zero."""
        self.steps += 1
        weights = prunable_weights(module)
        if self.steps <= self.ramp_steps:
            self.criterion.watch(self.behind, gradients(weights))
            with torch.no_grad():
                for weight, behind, mask in zip(weights, self.behind, self.masks, strict=True):
                    behind += weight - behind.masked_fill(mask, 0.0)
                    if not self.regrow:
                        behind.masked_fill_(mask, 0.0)
            if self.steps % self.every == 0 or self.steps == self.ramp_steps:
                sparsity = cubic(self.steps / self.ramp_steps, self.start, self.sparsity)
                self.masks = self.choose(self.behind, self.criterion.scores(self.behind), sparsity)
            for weight, behind in zip(weights, self.behind, strict=True):
                weight.data.copy_(behind)
        silence(module, self.masks)
