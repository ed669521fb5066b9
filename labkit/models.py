"""The architectures, each rebuilt from a small dictionary.

A trained network is two things: numbers (its parameters) and the arithmetic that uses them. labkit
stores the numbers in safetensors and the arithmetic as a `config`: the architecture's name plus every
width in it. That is why a model whose channels were physically removed can be saved and loaded without
pickle: it is the same architecture with smaller widths.

    build({"architecture": "resnet20", "input_shape": [1, 32, 32], "num_outputs": 10})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import ConfigError, nearest

MODELS = ("lenet5", "resnet8", "resnet20")
_LARGEST_WIDTH = 8192


class LeNet5(nn.Module):
    """Caffe's LeNet-5: two 5×5 convolutions with pooling, two linear layers (LeCun et al. 1998).

    input [N, C, H, W] → logits [N, num_outputs]. At 1×28×28 and 10 outputs it has 431,080 parameters,
    the number that the compression papers divide by.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        channels, height, width = config["input_shape"]
        first, second = config["channels"]
        side_h, side_w = ((height - 4) // 2 - 4) // 2, ((width - 4) // 2 - 4) // 2
        if min(side_h, side_w) < 1:
            raise ConfigError(f"lenet5 needs images of at least 16×16, got {height}×{width}")
        self.conv1 = nn.Conv2d(channels, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * side_h * side_w, config["hidden"])
        self.dropout = nn.Dropout(config["dropout"])
        self.fc2 = nn.Linear(config["hidden"], config["num_outputs"])
        self.config = dict(config)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        x = nn.functional.max_pool2d(self.conv1(image), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))) (He et al. 2016, figure 2).

    Where the image shrinks, the shortcut is a convolution; where the channels stay what they are, an average.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 and first:
            self.shortcut = nn.AvgPool2d(stride, ceil_mode=True)
        elif stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """X [N, inputs, H, W] → [N, outputs, H/stride, W/stride]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR-style ResNet (He et al. 2016, section 4.2): 3 stages, global average pooling, one linear.

    `stages` are the channels of each stage's residual stream, `inner` those between a block's two
    convolutions; both shrink when channels are pruned. A `first_stride` of 2 halves the image in the first block, and
    every later layer computes a quarter (Howard et al. 2017, section 3.4: resolution multiplier).
    input [N, C, H, W] → logits [N, num_outputs].
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        stages, inner = config["stages"], config["inner"]
        self.stem = nn.Conv2d(config["input_shape"][0], stages[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(stages[0])
        blocks: list[nn.Module] = []
        inputs = stages[0]
        for index, (outputs, widths) in enumerate(zip(stages, inner, strict=True)):
            for position, width in enumerate(widths):
                first = index == position == 0
                stride = config["first_stride"] if first else 2 if position == 0 else 1
                blocks.append(BasicBlock(inputs, width, outputs, stride, first))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config["dropout"])
        self.fc = nn.Linear(inputs, config["num_outputs"])
        self.config = dict(config)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        x = self.blocks(torch.relu(self.bn(self.stem(image))))
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits


def _resnet_defaults(blocks_per_stage: int) -> dict[str, Any]:
    stages = [16, 32, 64]
    inner = [[width] * blocks_per_stage for width in stages]
    return {"stages": stages, "inner": inner, "first_stride": 1, "dropout": 0.0}


_ARCHITECTURES: dict[str, tuple[type[LeNet5] | type[ResNet], dict[str, Any]]] = {
    "lenet5": (LeNet5, {"channels": [20, 50], "hidden": 500, "dropout": 0.0}),
    "resnet8": (ResNet, _resnet_defaults(1)),
    "resnet20": (ResNet, _resnet_defaults(3)),
}


def build(config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network from its config; what the config leaves out takes the paper's width.

    config: `architecture` (one of MODELS), `input_shape` [C, H, W], `num_outputs`, and optionally the
    architecture's own widths and `dropout` (0 ≤ p < 1).
    Raises ConfigError for an unknown architecture or field, or a width outside 1..8192.
    """
    name = config.get("architecture")
    if name not in _ARCHITECTURES:
        raise ConfigError(f"unknown architecture {name!r}; {nearest(str(name), MODELS)}")
    cls, defaults = _ARCHITECTURES[name]
    required = ("architecture", "input_shape", "num_outputs")
    missing = [field for field in required if field not in config]
    if missing:
        raise ConfigError(f"the config of {name} lacks {', '.join(missing)}")
    unknown = set(config) - set(required) - set(defaults)
    if unknown:
        raise ConfigError(f"unknown field {min(unknown)!r} for {name}; {nearest(min(unknown), defaults)}")
    merged = {**defaults, **config}
    _check_shapes(merged, defaults)
    return cls(merged)


def _check_shapes(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    if not isinstance(config["input_shape"], Sequence) or len(config["input_shape"]) != 3:
        raise ConfigError(f"input_shape must be [channels, height, width], got {config['input_shape']!r}")
    if config.get("first_stride", 1) not in (1, 2):
        raise ConfigError(f"first_stride={config['first_stride']!r} must be 1 or 2")
    dropout = config["dropout"]
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout={dropout!r} must lie in 0 ≤ p < 1")
    for field in ("input_shape", "num_outputs", "channels", "hidden", "stages", "inner"):
        if field in config:
            reference = defaults.get(field, config[field])
            if isinstance(reference, list) and (
                not isinstance(config[field], Sequence) or len(config[field]) != len(reference)
            ):
                raise ConfigError(f"{field} must be a list of {len(reference)}, got {config[field]!r}")
            if field == "inner" and [_count(each) for each in config[field]] != [
                _count(each) for each in reference
            ]:
                raise ConfigError(
                    f"inner holds a width for each block, {_count(reference[0])} a stage, got {config[field]!r}"
                )
            for width in _flatten(config[field]):
                if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= _LARGEST_WIDTH:
                    raise ConfigError(
                        f"{field} holds {width!r}; allowed are whole numbers 1..{_LARGEST_WIDTH}"
                    )


def _count(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else 0


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flatten(part)]
    return [value]
