"""LeNet-5, as Caffe shipped it: convolutions, pooling and two linear layers, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import ConfigError

DEFAULTS: dict[str, Any] = {"channels": [20, 50], "hidden": 500, "dropout": 0.0}


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
