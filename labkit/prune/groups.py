"""Which channels hang together, and how they are taken out.

A convolution's output channel is one slice of its own weight, one entry of the batch norm behind it, and
one slice of every layer that reads it: remove one and the others must go. In a ResNet each block *adds*
to its stage's residual stream, so channel i of the stream is written by the stem or the shortcut and by
the last convolution of every block of that stage. All of these are one `Group`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.errors import TechniqueError

State = Mapping[str, Tensor]
Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Group:
    """Channels 0..C−1 that are removed together; every name is a module's path in the network.

    `width` is where C stands in the config, `producers` have C outputs, `norms` scale those outputs, and
    `consumers` have C inputs (or C·k, if a feature map of k pixels a channel was flattened before them).
    """

    width: Keys
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[str, ...]
    residual: bool = False


def channel_groups(config: Mapping[str, Any]) -> tuple[Group, ...]:
    """Every group of a shipped architecture, from its config. The logits are nobody's to remove."""
    if config["architecture"] == "lenet5":
        return (
            Group(("channels", 0), ("conv1",), (), ("conv2",)),
            Group(("channels", 1), ("conv2",), (), ("fc1",)),
            Group(("hidden",), ("fc1",), (), ("fc2",)),
        )
    if config["architecture"] in ("resnet8", "resnet20"):
        return _resnet_groups(config["inner"])
    raise TechniqueError(f"labkit does not know yet which channels of {config['architecture']} hang together")


def _resnet_groups(inner: Sequence[Sequence[int]]) -> tuple[Group, ...]:
    groups: list[Group] = []
    producers, norms, consumers = ["stem"], ["bn"], list[str]()
    first = 0
    for stage, widths in enumerate(inner):
        if stage > 0:  # the first block of a later stage has a convolution as its shortcut: a new stream
            entry = f"blocks.{first}"
            consumers += [f"{entry}.conv1", f"{entry}.shortcut.0"]
            groups.append(_stream(stage - 1, producers, norms, consumers))
            producers, norms, consumers = [f"{entry}.shortcut.0"], [f"{entry}.shortcut.1"], []
        for position in range(len(widths)):
            block = f"blocks.{first + position}"
            keys = ("inner", stage, position)
            groups.append(Group(keys, (f"{block}.conv1",), (f"{block}.bn1",), (f"{block}.conv2",)))
            producers.append(f"{block}.conv2")
            norms.append(f"{block}.bn2")
            if stage == 0 or position > 0:
                consumers.append(f"{block}.conv1")
        first += len(widths)
    groups.append(_stream(len(inner) - 1, producers, norms, [*consumers, "fc"]))
    return tuple(groups)


def _stream(stage: int, producers: list[str], norms: list[str], consumers: list[str]) -> Group:
    return Group(("stages", stage), tuple(producers), tuple(norms), tuple(consumers), residual=True)


def get_width(config: Any, keys: Keys) -> int:
    """The width that `keys` lead to."""
    for key in keys:
        config = config[key]
    return int(config)


def remove(
    config: Mapping[str, Any], state: State, kept: Mapping[Group, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the parameters with only the kept channels of each group; the inputs stay as they are.

    kept: group → indices of the channels that stay, [K] int64, ascending. A weight [out, in, …] loses rows
    where it produces the group and columns where it consumes it; batch norms lose entries of their scale,
    shift, running mean and running variance.
    """
    narrow, tensors = copy.deepcopy(dict(config)), dict(state)
    for group, indices in kept.items():
        _set_width(narrow, group.width, len(indices))
        for name in _one_entry_a_channel(tensors, (*group.producers, *group.norms)):
            tensors[name] = tensors[name][indices]
        for consumer in group.consumers:
            weight = tensors[f"{consumer}.weight"]
            pixels = weight.shape[1] // get_width(config, group.width)
            columns = (indices[:, None] * pixels + torch.arange(pixels)).flatten()
            tensors[f"{consumer}.weight"] = weight[:, columns]
    return narrow, tensors


def _one_entry_a_channel(state: State, modules: Sequence[str]) -> list[str]:
    """The names of the modules' tensors [C, …]; a batch norm's step counter has no such axis."""
    return [name for name, tensor in state.items() if name.rpartition(".")[0] in modules and tensor.ndim > 0]


def _set_width(config: Any, keys: Keys, width: int) -> None:
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = width
