"""ResNet: blocks that add what they compute to what they were given, so that depth does not hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


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
    every later layer computes a quarter (Howard et al. 2017, section 3.4: resolution multiplier); a `stem_stride` of
    2 halves it one layer earlier, and no layer computes on all of its pixels.
    input [N, C, H, W] → logits [N, num_outputs].
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        stages, inner = config["stages"], config["inner"]
        self.stem = nn.Conv2d(config["input_shape"][0], stages[0], 3, config["stem_stride"], 1, bias=False)
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
        if self.config["stem_stride"] == 1:  # younger than the zoo: what was made without it keeps its digest
            del self.config["stem_stride"]

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        x = self.blocks(torch.relu(self.bn(self.stem(image))))
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits


def defaults(*blocks: int) -> dict[str, Any]:
    """The paper's widths, with so many blocks in each of the three stages."""
    stages = [16, 32, 64]
    inner = [[width] * count for width, count in zip(stages, blocks, strict=True)]
    return {"stages": stages, "inner": inner, "stem_stride": 1, "first_stride": 1, "dropout": 0.0}
