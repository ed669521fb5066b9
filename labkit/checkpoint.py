"""A training's state, kept after every epoch: one that was interrupted goes on as if it never had been.

Two files lie in the folder: `checkpoint.json` says how many epochs of which run are finished, and names the other,
such as `epoch-3.safetensors`, which holds the parameters and what the optimizer remembers of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from labkit.errors import ConfigError
from labkit.files import read_json, write_atomically

_MANIFEST = "checkpoint.json"


def keep(
    folder: Path, run: Mapping[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int
) -> None:
    """Write parameters and the optimizer's state, then the manifest that names them: where it is, both are whole.

    `run`: what it all follows from, as plain data; only the same run goes on here.
    """
    from safetensors.torch import save

    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in state.items() if v is not None}
    name = f"epoch-{epochs}.safetensors"
    write_atomically(folder / name, save(tensors))
    write_atomically(folder / _MANIFEST, json.dumps({"epochs": epochs, "file": name, **run}).encode())
    (folder / f"epoch-{epochs - 1}.safetensors").unlink(missing_ok=True)


def resume(folder: Path, run: Mapping[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `keep` wrote and return the number of finished epochs; 0 without a checkpoint.

    Raises ConfigError for the checkpoint of another run, and for a damaged one.
    """
    if not (folder / _MANIFEST).exists():
        return 0
    from safetensors import SafetensorError
    from safetensors.torch import load

    manifest = read_json(folder / _MANIFEST, ConfigError)
    if any(manifest.get(key) != value for key, value in run.items()):
        raise ConfigError(f"{folder} belongs to another training run: choose another folder, or remove it")
    try:
        tensors = load((folder / Path(manifest["file"]).name).read_bytes())
        module.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        state = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".")
                state["state"].setdefault(int(index), {})[field] = value
        optimizer.load_state_dict(state)
        return int(manifest["epochs"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"the checkpoint in {folder} is damaged ({str(error)[:200]}): remove the folder to train from the start"
        ) from None
