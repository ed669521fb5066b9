"""A layer as two thin ones: the shape that a low-rank factorisation needs, named in an architecture's config.

    Linear(in, out)           → Linear(in, rank), Linear(rank, out)
    Conv2d(in, out, k × k)    → Conv2d(in, rank, k × k), Conv2d(rank, out, 1 × 1)

build({…, "low_rank": {"fc1": 32}}) makes the network with a factorised fc1, whose parameters are then called
fc1.0.weight, fc1.1.weight and fc1.1.bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from labkit.errors import ConfigError


def factors(layer: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of the matrix that a layer multiplies with: out, and in · kh · kw; None for other layers."""
    if type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1):
        return layer.weight.shape[0], layer.weight[0].numel()
    return None


def with_ranks(module: nn.Module, ranks: Any) -> nn.Module:
    """`module` itself with each named layer replaced by two fresh ones of that rank; its config says so.

    Raises ConfigError for a layer that is not there or has no such factors, and a rank beyond its matrix's.
    """
    if not isinstance(ranks, Mapping):
        raise ConfigError(f"low_rank must map layers to ranks, such as {{'fc1': 32}}, got {ranks!r}")
    layers = dict(module.named_modules())
    for name, rank in ranks.items():
        size = factors(layers.get(name, module))
        if size is None:
            raise ConfigError(
                f"low_rank names {name!r}, which is no linear layer or ungrouped convolution here"
            )
        if type(rank) is not int or not 1 <= rank <= min(size):
            raise ConfigError(f"low_rank[{name!r}]={rank!r} must be a whole number 1..{min(size)}")
        parent, _, own = name.rpartition(".")
        setattr(layers[parent], own, _thin(layers[name], rank).to(layers[name].weight.dtype))
    if ranks and hasattr(module, "config"):
        module.config = {**module.config, "low_rank": dict(ranks)}  # type: ignore[assignment, dict-item]
    return module


def _thin(layer: Any, rank: int) -> nn.Sequential:
    biased = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=biased)
        )
    how = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    first = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, bias=False, **how)
    return nn.Sequential(first, nn.Conv2d(rank, layer.out_channels, 1, bias=biased))
