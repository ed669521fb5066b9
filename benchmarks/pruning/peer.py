"""Beside Torch-Pruning: the same network, the same multiply-adds, the same fine-tuning by the same loop.

Which channels go is all that differs. Torch-Pruning runs in an environment of its own (`run_torch_pruning.py`) and
hands back the weights that are left. The fine-tuning is short and hears no teacher, so that the choice still shows.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load

from benchmarks.keep import trained
from benchmarks.parts import Found, nulls
from benchmarks.pruning import SEEDS
from benchmarks.pruning.common import Subject, subject
from benchmarks.quantization_peers import run_script
from benchmarks.quantization_peers.environments import python_of
from labkit.cli.terminal import say
from labkit.errors import LabkitError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.models import build, refit, resnet
from labkit.prune import PruneChannels
from labkit.train import Train
from labkit.variant import Step, Variant

OURS = PruneChannels(0.5, round_to=8)
FINE_TUNING = Train(epochs=2, batch_size=128, learning_rate=0.1, augment="shift+flip", threads=1)
FIGURES = ("vs_torch_pruning_pp", "torch_pruning_more_accurate")
_LIMIT_S = 300.0


def torch_pruning(quick: bool) -> Found:
    """Both, for each seed of the fine-tuning, on the same test images."""
    given = subject(quick)
    if quick or isinstance(given, str):
        return nulls(FIGURES, "--quick leaves the peer out" if quick else str(given))
    try:
        theirs, told = pruned_by_peer(given.module)
    except LabkitError as error:
        return nulls(FIGURES, str(error))
    rows = [_row(given, OURS(given.module), theirs, seed) for seed in SEEDS]
    return Found(figures(rows), [{**row, **told} for row in rows])


def _row(given: Subject, ours: Variant, theirs: Variant, seed: int) -> dict[str, Any]:
    """Both fine-tuned with this seed: how many points labkit is ahead on the same images, with the interval."""
    recipe, data = dataclasses.replace(FINE_TUNING, seed=seed), given.dataset
    scores, row = {}, {"seed": seed}
    for name, network in (("labkit", ours), ("torch_pruning", theirs)):
        say(f"{name}, seed {seed}")
        scores[name] = evaluate(trained(recipe, network, data), data, "test")
        row |= {f"{name}_macs": given.size(network)["macs"], f"{name}_accuracy": scores[name].mean().item()}
    paired = data.task.compare(scores["torch_pruning"], scores["labkit"])
    low, high = paired.ci95
    return {**row, "ahead_pp": 100 * paired.difference, "ahead_pp_ci95": (100 * low, 100 * high)}


def figures(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """How far labkit is ahead, the mean of the seeds; and in how many an interval without 0 says it is behind."""
    ahead = float(np.mean([row["ahead_pp"] for row in rows]))
    behind = sum(row["ahead_pp_ci95"][1] < 0 for row in rows)
    return dict(zip(FIGURES, (ahead, behind), strict=True))


def pruned_by_peer(source: Variant) -> tuple[Variant, dict[str, Any]]:
    """What Torch-Pruning leaves of a resnet when asked as we ask ourselves; with its versions and settings.

    Raises UnavailableError if its environment cannot be made, TechniqueError with its own reason if it fails.
    """
    python = python_of("torch_pruning")
    with tempfile.TemporaryDirectory() as name:
        config, whole, left, told = (
            Path(name) / each
            for each in ("config.json", "whole.safetensors", "left.safetensors", "told.json")
        )
        config.write_text(json.dumps(source.model.config))
        whole.write_bytes(source.payload)
        script = Path(__file__).with_name("run_torch_pruning.py")
        asked = [str(OURS.pruning_ratio), str(OURS.round_to)]
        command = [python, script, resnet.__file__, config, whole, *asked, left, told]
        run_script("torch_pruning", [str(each) for each in command], Path(name), _LIMIT_S, task="prune")
        return narrowed(source, load(left.read_bytes())), json.loads(told.read_text())


def narrowed(source: Variant, tensors: Mapping[str, Any]) -> Variant:
    """The same architecture with the widths that these weights have, and with these weights.

    Raises TechniqueError if it cannot be built with such widths.
    """
    fitted = refit(build, source.model.config, {name: tuple(each.shape) for name, each in tensors.items()})
    if fitted is None:
        raise TechniqueError("torch_pruning left widths with which this architecture cannot be built")
    module = build(fitted)
    module.load_state_dict(tensors)
    config = {"pruning_ratio": OURS.pruning_ratio, "round_to": OURS.round_to}
    step = Step("torch_pruning", config, (source.digest,))
    return source.derive(f"{source.name}+torch_pruning", step, model=module.eval())
