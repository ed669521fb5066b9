"""Torch-Pruning, called as its own page says to; it runs in an environment without labkit, hence plain Python.

python run_torch_pruning.py NETWORK.py CONFIG.json WEIGHTS.safetensors RATIO ROUND_TO OUT.safetensors REPORT.json

NETWORK.py is the file that defines the class ResNet, which needs nothing but torch and the config. What comes back is
the weights that are left: their shapes tell the widths.
"""

import importlib.util
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
import torch_pruning
from safetensors.torch import load_file, save_file


def network(source: Path, config: Path, weights: Path) -> torch.nn.Module:
    """The trained network."""
    spec = importlib.util.spec_from_file_location("network", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built = module.ResNet(json.loads(config.read_text()))
    built.load_state_dict(load_file(weights))
    return built.eval()


def prune(model: torch.nn.Module, ratio: float, round_to: int) -> None:
    """The first example of its page: the same share of every layer's channels, by their L2 norms; the answers stay."""
    example = torch.zeros(1, *model.config["input_shape"])
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=importance,
        pruning_ratio=ratio,
        ignored_layers=[model.fc],
        round_to=round_to,
    )
    pruner.step()


def main() -> None:
    """Prune as the command line says, and report versions, settings and seconds (imports not counted)."""
    source, config, weights, out, report = (Path(sys.argv[index]) for index in (1, 2, 3, 6, 7))
    ratio, round_to = float(sys.argv[4]), int(sys.argv[5])
    model = network(source, config, weights)
    started = time.perf_counter()
    prune(model, ratio, round_to)
    told = {
        "versions": {name: version(name) for name in ("torch-pruning", "torch")},
        "settings": f"BasePruner, GroupMagnitudeImportance(p=2), pruning_ratio={ratio}, round_to={round_to}",
        "seconds": round(time.perf_counter() - started, 2),
    }
    save_file({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, out)
    report.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
