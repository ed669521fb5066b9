"""Beside Torch-Pruning: the same network, the same share of multiply-adds, the same fine-tuning by the same loop.

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

from benchmarks.parts import Found, nulls
from benchmarks.pruning import SEEDS
from benchmarks.pruning.common import subject
from benchmarks.pruning.keep import trained
from benchmarks.quantization_peers import run_script
from benchmarks.quantization_peers.environments import python_of
from labkit.cli.terminal import say
from labkit.errors import LabkitError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.models import build, refit, resnet
from labkit.prune import PruneChannels
from labkit.train import Train
from labkit.variant import Step, Variant

RATIO, ROUND_TO = 0.5, 8
OURS = PruneChannels(RATIO, round_to=ROUND_TO)
FINE_TUNING = Train(epochs=2, batch_size=128, learning_rate=0.1, augment="shift+flip", threads=1)
PEERS = ("l2", "l1")
"""Settings of Torch-Pruning: the norm by which it weighs; the first is its page's own example."""
FIGURES = ("vs_torch_pruning_pp", "vs_torch_pruning_worst_upper_pp")
_LIMIT_S = 300.0


def torch_pruning(quick: bool) -> Found:
    """Ours and each of its settings, for each seed of the fine-tuning; the peer that ends best speaks for it."""
    given = subject(quick)
    if quick or isinstance(given, str):
        return nulls(FIGURES, "--quick leaves the peer out" if quick else str(given))
    networks, told = {"labkit": OURS(given.module)}, {}
    try:
        for setting in PEERS:
            networks[setting], told[setting] = pruned_by_peer(given.module, setting)
    except LabkitError as error:
        return nulls(FIGURES, str(error))
    found = Found()
    for seed in SEEDS:
        recipe = dataclasses.replace(FINE_TUNING, seed=seed)
        scores = {}
        for name, network in networks.items():
            say(f"{name}, seed {seed}")
            scores[name] = evaluate(trained(recipe, network, given.dataset), given.dataset, "test")
        for name, network in networks.items():
            row = {"tool": name, "seed": seed, **given.size(network), "accuracy": float(scores[name].mean())}
            if name in told:
                paired = given.dataset.task.compare(scores[name], scores["labkit"])
                low, high = paired.ci95
                row |= {
                    **told[name],
                    "ahead_pp": 100 * paired.difference,
                    "ahead_pp_ci95": (100 * low, 100 * high),
                }
            found.rows.append(row)
    found.figures = figures(found.rows)
    return found


def figures(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """How far labkit is ahead of the better setting, the mean of the seeds; and the least favourable upper bound."""
    by_peer = {name: [row for row in rows if row["tool"] == name] for name in PEERS}
    ahead = {name: float(np.mean([row["ahead_pp"] for row in own])) for name, own in by_peer.items()}
    best = min(ahead, key=lambda name: ahead[name])
    worst = min(row["ahead_pp_ci95"][1] for row in by_peer[best])
    return dict(zip(FIGURES, (ahead[best], worst), strict=True))


def pruned_by_peer(source: Variant, setting: str) -> tuple[Variant, Mapping[str, Any]]:
    """What Torch-Pruning leaves of a resnet, and with which versions and settings.

    Raises UnavailableError if its environment cannot be made, TechniqueError with its own reason if it fails.
    """
    python = python_of("torch_pruning")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            each: folder / each
            for each in ("config.json", "whole.safetensors", "left.safetensors", "told.json")
        }
        config, whole, left, told = files.values()
        config.write_text(json.dumps(source.model.config))
        whole.write_bytes(source.payload)
        script = Path(__file__).with_name("run_torch_pruning.py")
        paths = [str(each) for each in (resnet.__file__, config, whole)]
        command = [str(python), str(script), setting, *paths, str(RATIO), str(left), str(told)]
        run_script("torch_pruning", command, folder, _LIMIT_S, task="prune")
        tensors, report = load(left.read_bytes()), json.loads(told.read_text())
    return narrowed(source, tensors, setting), report


def narrowed(source: Variant, tensors: Mapping[str, Any], setting: str) -> Variant:
    """The same architecture with the widths that these weights have, and with these weights."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fitted = refit(build, source.model.config, shapes)
    if fitted is None:
        raise TechniqueError(
            "torch_pruning left widths with which a resnet cannot be built: its rounding differs"
        )
    module = build(fitted)
    module.load_state_dict(tensors)
    step = Step("torch_pruning", {"setting": setting, "pruning_ratio": RATIO}, (source.digest,))
    return source.derive(f"{source.name}+torch_pruning_{setting}", step, model=module.eval())
