"""LeNet-300-100 on MNIST: which weights can go, and whether the few that stay would have been enough from the start.

Errors are of the 10,000 test images, three seeds each; a seed of `criteria` is that of the fine-tuning after one and
the same shipped network, a seed of `lottery` a training from new weights. Settings are those of the papers or what
the networks' own training used; nothing was tried out on the test images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.keep import Row, found
from benchmarks.parts import Found, nulls
from benchmarks.pruning import SEEDS
from labkit.cli.terminal import progress_line, say
from labkit.data import Dataset, load_dataset
from labkit.errors import DataError
from labkit.measure.quality import evaluate
from labkit.prune import PruneWeights, draw_tickets
from labkit.prune.lottery import Ticket
from labkit.prune.scores import CRITERIA
from labkit.statistics import mcnemar, wilson
from labkit.task import Scores
from labkit.train import Train
from labkit.zoo import load_model

DATASET, NETWORK = "mnist", "lenet300"
SPARSITIES = (0.95, 0.98, 0.99)
GRADUAL = PruneWeights(
    schedule="gradual",
    fine_tune_epochs=8,
    batch_size=256,
    learning_rate=0.05,
    weight_decay=0.0,
    augment="none",
    threads=1,
)
TICKETS = {21: 7, 4: 15}
"""Per cent of the weights, as the figures name it → the round that leaves so many: 21.1 and 3.6 %."""
FROM_SCRATCH = Train(
    epochs=5,
    batch_size=60,
    optimizer="adamw",
    learning_rate=0.0012,
    weight_decay=0.0,
    augment="none",
    threads=1,
)
"""Batches, optimizer and rate of Frankle and Carbin 2019, figure 2; they trained for 50,000 steps, this is 4,600."""
_IN_HASTE = {"max_samples": 2000, "batch_size": 64}
_KINDS = ("ticket", "control")


def criteria(quick: bool) -> Found:
    """Every criterion at every sparsity, zeroed little by little during the fine-tuning, for each seed."""
    names = [f"{each}_errors_{100 * sparsity:.0f}" for each in CRITERIA for sparsity in SPARSITIES]
    data = _mnist()
    if isinstance(data, str):
        return nulls(names, data)
    technique = dataclasses.replace(GRADUAL, **_IN_HASTE, fine_tune_epochs=1) if quick else GRADUAL
    whole = load_model(f"{NETWORK}@{DATASET}")
    before = evaluate(whole, data, "test")
    result = Found({"whole_errors": _errors(before)})
    for seed in SEEDS[:1] if quick else SEEDS:
        for criterion in CRITERIA:
            for sparsity in SPARSITIES:
                own = dataclasses.replace(technique, criterion=criterion, sparsity=sparsity, seed=seed)

                def find(own: PruneWeights = own) -> list[Row]:
                    say(f"{own.criterion}, {100 * own.sparsity:.0f} % zeros, seed {own.seed}")
                    scores = evaluate(own(whole, data, progress_line()), data, "test")
                    row = {"criterion": own.criterion, "sparsity": own.sparsity, "seed": own.seed}
                    return [{**row, **counted(scores), **more_than(before, scores)}]

                result.rows += found("criterion", {**own.config, "source": whole.digest}, data, find)
    for name in names:
        criterion, share = name.split("_errors_")
        result.figures[name] = _median(
            row["errors"]
            for row in result.rows
            if row["criterion"] == criterion and row["sparsity"] == int(share) / 100
        )
    return result


def lottery(quick: bool) -> Found:
    """The ticket and its control where 21.1 % and 3.6 % of the weights are left, beside the whole network."""
    names = ["whole_lottery_errors"] + [f"{kind}_errors_{share}" for share in TICKETS for kind in _KINDS]
    data = _mnist()
    if isinstance(data, str):
        return nulls(names, data)
    recipe = dataclasses.replace(FROM_SCRATCH, **_IN_HASTE, epochs=1) if quick else FROM_SCRATCH
    rounds = [2] if quick else list(TICKETS.values())
    result = Found()
    for seed in SEEDS[:1] if quick else SEEDS:
        own = dataclasses.replace(recipe, seed=seed)
        settings = {**own.config, "rounds": rounds}
        result.rows += found("lottery", settings, data, lambda own=own: _drawn(own, rounds, data))
    for name, (round_, kind) in zip(
        names, [(0, "ticket")] + [(each, kind) for each in TICKETS.values() for kind in _KINDS], strict=True
    ):
        result.figures[name] = _median(
            row["errors"] for row in result.rows if (row["round"], row["network"]) == (round_, kind)
        )
    missing = [name for name, value in result.figures.items() if value is None]
    result.null_reasons = dict.fromkeys(missing, "--quick draws two rounds")
    return result


def _drawn(recipe: Train, rounds: Sequence[int], data: Dataset) -> list[Row]:
    """A row for every ticket and control: errors on test, and what it gets right of validation after each epoch."""
    say(f"{rounds[-1]} rounds, seed {recipe.seed}")
    config = {"architecture": NETWORK}
    tickets = draw_tickets(config, data, recipe, rounds[-1], controls=rounds, progress=progress_line())
    whole = evaluate(tickets[0].ticket.variant, data, "test")
    return [row for ticket in tickets for row in _of_round(ticket, whole, data, recipe.seed)]


def _of_round(ticket: Ticket, whole: Scores, data: Dataset, seed: int) -> list[Row]:
    rows, scores = [], {}
    for kind in _KINDS:
        trained = getattr(ticket, kind)
        if trained is None:
            continue
        scores[kind] = evaluate(trained.variant, data, "test")
        wrong = [100 * (1 - right) for right in trained.curve]
        row = {"seed": seed, "round": ticket.round, "kept": ticket.kept, "network": kind}
        rows.append({**row, **counted(scores[kind]), "validation_error_pct": wrong})
        if ticket.round:
            rows[-1] |= more_than(whole, scores[kind])
    if len(rows) == 2:
        behind = more_than(scores["ticket"], scores["control"])
        rows[1] |= {key.replace("than", "than_ticket"): value for key, value in behind.items()}
    return rows


def counted(scores: Scores) -> Row:
    """How many are wrong, of how many, with the 95 % interval of that count: part of a row."""
    errors, total = _errors(scores), len(scores)
    low, high = wilson(errors, total)
    return {"errors": errors, "errors_ci95": [round(low * total), round(high * total)], "images": total}


def more_than(baseline: Scores, scores: Scores) -> Row:
    """How many errors more than the baseline on the same images, with the paired interval: part of a row."""
    paired, total = mcnemar(scores > 0.5, baseline > 0.5), len(scores)
    low, high = paired.ci95
    return {
        "more_than": round(paired.difference * total),
        "more_than_ci95": [round(low * total), round(high * total)],
    }


def _mnist() -> Dataset | str:
    try:
        return load_dataset(DATASET)
    except DataError as error:
        return str(error)


def _errors(scores: Scores) -> int:
    return int((scores < 0.5).sum())


def _median(errors: Any) -> float | None:
    values = list(errors)
    return float(np.median(values)) if values else None
