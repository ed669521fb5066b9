"""The config of a network whose parameters have become smaller.

How a width in the config shows in the parameters need not be written down for each architecture. The network is
built twice, once with a width that is one larger, on a device that stores nothing; an axis that has grown by a tells
that its length is a·width + b, and from the length it has now follows the width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from labkit.errors import ConfigError

Build = Callable[[Mapping[str, Any]], nn.Module]
Shapes = Mapping[str, tuple[int, ...]]
_GIVEN = ("input_shape", "num_outputs")


def refit(build: Build, config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any] | None:
    """The config by which `build` makes parameters of `shapes`; None if it can make none such.

    `config` is that of the network before: its architecture and everything but the widths stay.
    """
    fitted, before = copy.deepcopy(dict(config)), _shapes(build, config)
    for path in _numbers({key: value for key, value in config.items() if key not in _GIVEN}):
        wider = copy.deepcopy(dict(config))
        _set(wider, path, _get(config, path) + 1)
        width = _width(_get(config, path), before, _shapes(build, wider), shapes)
        if width is not None:
            _set(fitted, path, width)
    return fitted if _shapes(build, fitted) == dict(shapes) else None


def _width(width: int, before: Shapes, wider: Shapes, now: Shapes) -> int | None:
    """What the width has become; None if it is no width, or the parameters have lost what is no multiple of it."""
    if set(before) != set(wider) or set(before) != set(now):
        return None
    for name, shape in before.items():
        for size, larger, left in zip(shape, wider[name], now[name], strict=False):
            if larger != size:
                lost, rest = divmod(size - left, larger - size)
                return width - lost if rest == 0 and lost < width else None
    return None


def _shapes(build: Build, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parameter → its shape; nothing for a config that cannot be built."""
    try:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    except ConfigError:
        return {}


def _numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all whole numbers inside dictionaries and lists."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _numbers(each, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _numbers(each, (*path, index))
    elif type(value) is int:
        yield path


def _get(config: Any, path: tuple[Any, ...]) -> int:
    for key in path:
        config = config[key]
    return int(config)


def _set(config: Any, path: tuple[Any, ...], value: int) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value
