"""Lottery tickets: the few weights that would have been enough, had one known them (Frankle and Carbin 2019).

Train a network, cut a share of its smallest weights, set what is left back to what it was before the training, and
train again; repeat. The small network that remains, the ticket, learns as well as the whole did. Not because of its
shape alone: the same mask with newly drawn weights, the control, learns worse. Larger networks need to be set back
to where they were after a few epochs instead of to the very beginning (late rewinding, Frankle et al. 2019).

The paper's LeNet-300-100 loses 20 % of each layer a round, and 10 % of the output layer: after 7 rounds 21.1 % of
the weights are left, after 15 rounds 3.6 %.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError
from labkit.measure.quality import evaluate
from labkit.progress import Progress, part, silent
from labkit.prune.masks import lowest, prunable_weights, zero
from labkit.prune.scores import magnitudes
from labkit.runtimes import RunOptions
from labkit.train import Train, fit, fresh_variant, steps_per_epoch
from labkit.variant import Variant


@dataclass(frozen=True)
class Trained:
    """A network after its training, and its quality on validation after each epoch of it."""

    variant: Variant
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Ticket:
    """One round: the share of weights that is `kept`, the ticket, and the control if one was asked for.

    Round 0 is the whole network.
    """

    round: int
    kept: float
    ticket: Trained
    control: Trained | None


@door
def draw_tickets(
    config: Mapping[str, Any],
    dataset: Dataset,
    recipe: Train,
    rounds: int = 7,
    rate: float = 0.2,
    output_rate: float = 0.1,
    rewind_epochs: int = 0,
    controls: Sequence[int] = (),
    progress: Progress = silent,
) -> list[Ticket]:
    """Train a network of this `config` (`labkit.models.build`), and find tickets in it: rounds 0 to `rounds`.

    Each round cuts the share `rate` of what is left in each layer, `output_rate` in the last, and sets the rest back
    to their values after `rewind_epochs` of the first training; then all of `recipe` follows. `controls` are the
    rounds in which the same mask is trained from newly drawn weights too.
    Raises ConfigError for rounds, controls, rates or epochs out of range; Cancelled through `progress`.
    """
    _check(rounds, rate, output_rate, rewind_epochs, recipe.epochs)
    _check_controls(controls, rounds)
    start, other = (fresh_variant(dict(config), dataset, recipe.seed + k) for k in (0, 1))
    trainings, done = 1 + rounds + len(set(controls)), 0

    def train(begin: nn.Module, masks: Sequence[Tensor], name: str) -> tuple[Trained, nn.Module]:
        """Trained with what is masked held at zero; and a copy from when `rewind_epochs` were over."""
        nonlocal done
        share = part(progress, done / trainings, (done + 1) / trainings, f"{name}, ")
        variant = dataclasses.replace(start, model=copy.deepcopy(begin))
        zero(variant.model, masks)
        watch = _Watch(variant, dataset, masks, steps_per_epoch(recipe, dataset), rewind_epochs)
        module = fit(recipe, variant, dataset, share, after_step=watch)
        done += 1
        made = start.derive(f"{start.name}+{name}", recipe.step(start), model=module)
        return Trained(made, tuple(watch.curve)), watch.kept

    masks = [torch.zeros(weight.shape, dtype=torch.bool) for weight in prunable_weights(start.model)]
    begin, tickets = start.model, list[Ticket]()
    for number in range(rounds + 1):
        ticket, early = train(begin, masks, f"ticket {number}")
        control = train(other.model, masks, f"control {number}")[0] if number in controls else None
        cut = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
        tickets.append(Ticket(number, 1 - cut, ticket, control))
        begin = early if number == 0 else begin
        cut_by_then, output_by_then = (1 - (1 - share) ** (number + 1) for share in (rate, output_rate))
        masks = _cut(ticket.variant.model, cut_by_then, output_by_then)
    return tickets


class _Watch:
    """What runs after each step: zeros held, quality after each epoch, a copy kept after `keep_after` epochs."""

    def __init__(
        self, variant: Variant, dataset: Dataset, masks: Sequence[Tensor], per_epoch: int, keep_after: int
    ) -> None:
        self.variant, self.dataset, self.masks = variant, dataset, masks
        self.per_epoch, self.keep_after = per_epoch, keep_after
        self.steps, self.curve = 0, list[float]()
        self.kept: nn.Module = variant.model

    def __call__(self, module: nn.Module) -> None:
        zero(module, self.masks)
        self.steps += 1
        if self.steps % self.per_epoch:
            return
        now = copy.deepcopy(module)  # measuring switches to evaluation mode, and `module` is in training
        options = RunOptions(threads=torch.get_num_threads())
        scores = evaluate(dataclasses.replace(self.variant, model=now), self.dataset, options=options)
        self.curve.append(self.dataset.task.quality(scores))
        if self.steps == self.keep_after * self.per_epoch:
            self.kept = now


def _cut(module: nn.Module, sparsity: float, output_sparsity: float) -> list[Tensor]:
    """Masks of the smallest weights of each layer; the zeros of former rounds are the smallest of all."""
    scores = magnitudes(prunable_weights(module))
    sparsities = [sparsity] * (len(scores) - 1) + [output_sparsity]
    return [lowest([score], each)[0] for score, each in zip(scores, sparsities, strict=True)]


def _check(rounds: int, rate: float, output_rate: float, rewind_epochs: int, epochs: int) -> None:
    for name, value in (("rate", rate), ("output_rate", output_rate)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}={value!r} is out of range; allowed: 0 < {name} < 1")
    if rounds < 1:
        raise ConfigError(f"rounds={rounds} is out of range; allowed: 1 ≤ rounds")
    if not 0 <= rewind_epochs <= epochs:
        raise ConfigError(
            f"rewind_epochs={rewind_epochs} is out of range; the recipe allows 0 ≤ rewind_epochs ≤ {epochs}"
        )


def _check_controls(controls: Sequence[int], rounds: int) -> None:
    unknown = [number for number in controls if number not in range(rounds + 1)]
    if unknown:
        raise ConfigError(
            f"controls={list(controls)}: there is no round {unknown[0]!r}; with rounds={rounds} allowed: 0 to {rounds}"
        )
