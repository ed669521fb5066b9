"""The architectures, each rebuilt from a small dictionary.

A trained network is two things: numbers (its parameters) and the arithmetic that uses them. labkit
stores the numbers in safetensors and the arithmetic as a `config`: the architecture's name plus every
width in it. That is why a model whose channels were physically removed can be saved and loaded without
pickle: it is the same architecture with smaller widths.

    build({"architecture": "resnet20", "input_shape": [1, 32, 32], "num_outputs": 10})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from labkit.errors import ConfigError, nearest
from labkit.models import lenet, mlp, mobilenet, resnet, vit
from labkit.models.low_rank import with_ranks
from labkit.models.refit import refit

_ARCHITECTURES: dict[str, tuple[Callable[[Mapping[str, Any]], nn.Module], dict[str, Any]]] = {
    "lenet300": (mlp.MLP, mlp.LENET300),
    "lenet5": (lenet.LeNet5, lenet.DEFAULTS),
    "resnet8": (resnet.ResNet, resnet.defaults(1, 1, 1)),
    "resnet14": (resnet.ResNet, resnet.defaults(2, 2, 2)),
    "resnet16": (resnet.ResNet, resnet.defaults(1, 3, 3)),
    "resnet20": (resnet.ResNet, resnet.defaults(3, 3, 3)),
    "mobilenet": (mobilenet.MobileNet, mobilenet.DEFAULTS),
    "vit": (vit.ViT, vit.DEFAULTS),
    "mlp": (mlp.MLP, mlp.DEFAULTS),
}
MODELS = tuple(_ARCHITECTURES)

__all__ = ["MODELS", "build", "refit"]

_REQUIRED = ("architecture", "input_shape", "num_outputs")
_LARGEST_WIDTH = 8192
_MOST_LAYERS = 64
_LARGEST = {"blocks": _MOST_LAYERS, "depth": _MOST_LAYERS, "expansion": 16}
"""Of what multiplies the layers or the widths, instead of `_LARGEST_WIDTH`."""


def build(config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network from its config; what the config leaves out takes the architecture's default.

    config: `architecture` (one of MODELS), `input_shape` [C, H, W], `num_outputs`, and optionally the
    architecture's own widths, `dropout` (0 ≤ p < 1), and `low_rank`: layers that are factorised, with their ranks.
    Raises ConfigError for an unknown architecture or field, or a width outside 1..8192.
    """
    name = config.get("architecture")
    if name not in _ARCHITECTURES:
        raise ConfigError(f"unknown architecture {name!r}; {nearest(str(name), MODELS)}")
    make, defaults = _ARCHITECTURES[name]
    missing = [field for field in _REQUIRED if field not in config]
    if missing:
        raise ConfigError(f"the config of {name} lacks {', '.join(missing)}")
    unknown = set(config) - set(_REQUIRED) - set(defaults) - {"low_rank"}
    if unknown:
        raise ConfigError(f"unknown field {min(unknown)!r} for {name}; {nearest(min(unknown), defaults)}")
    merged = {**defaults, **config}
    ranks = merged.pop("low_rank", {})
    _check(merged, defaults)
    return with_ranks(make(merged), ranks)


def _check(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Every field must have the form of its default and hold numbers in range."""
    if not isinstance(config["input_shape"], Sequence) or len(config["input_shape"]) != 3:
        raise ConfigError(f"input_shape must be [channels, height, width], got {config['input_shape']!r}")
    for stride in ("stem_stride", "first_stride"):
        if config.get(stride, 1) not in (1, 2):
            raise ConfigError(f"{stride}={config[stride]!r} must be 1 or 2")
    dropout = config["dropout"]
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout={dropout!r} must lie in 0 ≤ p < 1")
    for field, reference in {"input_shape": [1, 1, 1], "num_outputs": 1, **defaults}.items():
        if field == "hidden" and isinstance(reference, list):
            _check_layers(config[field])
        elif field != "dropout":
            _check_form(field, config[field], reference)
            _check_numbers(field, _numbers(config[field], reference))


def _check_form(field: str, value: Any, reference: Any) -> None:
    if not isinstance(reference, list):
        return
    if not isinstance(value, Sequence) or len(value) != len(reference):
        raise ConfigError(f"{field} must be a list of {len(reference)}, got {value!r}")
    blocks = [_count(each) for each in reference]
    if field == "inner" and [_count(each) for each in value] != blocks:
        each = f"{blocks[0]}" if len({*blocks}) == 1 else f"{blocks[0]}, {blocks[1]} and {blocks[2]}"
        raise ConfigError(f"inner holds a width for each block, {each} a stage, got {value!r}")


def _check_layers(hidden: Any) -> None:
    """A list of any length: each width is a layer of its own."""
    if not 1 <= _count(hidden) <= _MOST_LAYERS:
        raise ConfigError(f"hidden must be a list of 1..{_MOST_LAYERS} widths, one a layer, got {hidden!r}")
    _check_numbers("hidden", list(hidden))


def _check_numbers(field: str, numbers: list[Any]) -> None:
    largest = _LARGEST.get(field, _LARGEST_WIDTH)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= largest:
            raise ConfigError(f"{field} holds {number!r}; allowed are whole numbers 1..{largest}")


def _count(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else 0


def _numbers(value: Any, reference: Any) -> list[Any]:
    """What stands in `value` wherever `reference`, of the same form, has a number."""
    if isinstance(reference, list):
        return [number for pair in zip(value, reference, strict=True) for number in _numbers(*pair)]
    return [value]
