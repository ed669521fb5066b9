"""The matrix's MindSpore model: LeNet-5 as its tutorials write it."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore
from mindspore import nn

from labkit.variant import Array


class LeNet5(nn.Cell):
    """Image [N, 1, 32, 32] → logits [N, 10] (LeCun et al. 1998, with ReLU and max pooling)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid", has_bias=True)
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True)
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten()
        self.fc1, self.fc2, self.fc3 = nn.Dense(400, 120), nn.Dense(120, 84), nn.Dense(84, 10)

    def construct(self, x: mindspore.Tensor) -> mindspore.Tensor:
        """MindSpore compiles this method's source, and looks for the name `self` in it."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.flatten(self.pool(self.relu(self.conv2(x))))
        return self.fc3(self.relu(self.fc2(self.relu(self.fc1(x)))))


def lenet5(feeds: Mapping[str, Array]) -> LeNet5:
    """The Cell in inference mode, the same each time."""
    mindspore.set_seed(0)
    return LeNet5().set_train(False)
