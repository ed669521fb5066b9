"""Torch-Pruning, called as its own page says to; it runs in an environment without labkit, hence plain Python.

python run_torch_pruning.py SETTING NETWORK.py CONFIG.json WEIGHTS.safetensors RATIO OUT.safetensors REPORT.json

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

SETTINGS = {
    "l2": {"p": 2},  # the first example of its page
    "l1": {"p": 1},
}


def network(source: Path, config: Path, weights: Path) -> torch.nn.Module:
    """The trained network."""
    spec = importlib.util.spec_from_file_location("network", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built = module.ResNet(json.loads(config.read_text()))
    built.load_state_dict(load_file(weights))
    return built.eval()


def prune(model: torch.nn.Module, ratio: float, setting: dict) -> None:
    """Take the same share of every layer's channels; the answers stay, as its page says."""
    example = torch.zeros(1, *model.config["input_shape"])
    importance = torch_pruning.importance.GroupMagnitudeImportance(**setting)
    pruner = torch_pruning.pruner.BasePruner(
        model, example, importance=importance, pruning_ratio=ratio, ignored_layers=[model.fc], round_to=8
    )
    pruner.step()


def main() -> None:
    """Prune as the command line says, and report versions, settings and seconds (imports not counted)."""
    setting, ratio = SETTINGS[sys.argv[1]], float(sys.argv[5])
    source, config, weights, out, report = (Path(sys.argv[index]) for index in (2, 3, 4, 6, 7))
    model = network(source, config, weights)
    started = time.perf_counter()
    prune(model, ratio, setting)
    told = {
        "versions": {name: version(name) for name in ("torch-pruning", "torch")},
        "settings": f"GroupMagnitudeImportance(p={setting['p']}), pruning_ratio={ratio}, round_to=8",
        "seconds": round(time.perf_counter() - started, 2),
    }
    save_file({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, out)
    report.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
