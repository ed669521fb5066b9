"""A LeNet-5 small enough that a command takes no time over it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from labkit.models import build
from labkit.variant import Variant


def save_small_lenet(lenet: Variant, folder: str | Path) -> None:
    """Write `lenet` with few channels and random weights into `folder`, named "small"."""
    torch.manual_seed(0)
    module = build({**lenet.model.config, "channels": [3, 4], "hidden": 12}).eval()
    dataclasses.replace(lenet, model=module, name="small").save(folder)
