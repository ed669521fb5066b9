"""MLP: layers in which every unit sees every unit of the layer before, and nothing that knows what an image is.

    image [N, C, H, W] → C·H·W numbers → as many hidden layers as `hidden` has widths → logits

A convolution knows that a digit moved by a pixel is the same digit; an MLP has to be shown. That makes it the network
to see distillation with: what the teacher learned from moved digits, the student can only have from the teacher
(Hinton, Vinyals and Dean 2015, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

DEFAULTS: dict[str, Any] = {"hidden": [1200, 1200], "dropout": 0.0}
LENET300: dict[str, Any] = {"hidden": [300, 100], "dropout": 0.0}
"""LeNet-300-100 (LeCun et al. 1998): the number of its parameters is what compression papers divide by."""


class MLP(nn.Module):
    """Linear layers with ReLU between them, and dropout behind each hidden one.

    input [N, C, H, W] → logits [N, num_outputs]. At 1×28×28 and 10 outputs, with two hidden layers of 1,200 as in
    Hinton's teacher, it has 2,395,210 parameters; with 300 and 100, as LeNet-300-100, 266,610 parameters.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = [math.prod(config["input_shape"]), *config["hidden"], config["num_outputs"]]
        self.names = [f"fc{number}" for number in range(1, len(widths))]
        for name, inputs, outputs in zip(self.names, widths[:-1], widths[1:], strict=True):
            self.add_module(name, nn.Linear(inputs, outputs))
        self.dropout = nn.Dropout(config["dropout"])
        self.config = dict(config)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        *hidden, last = (self.get_submodule(name) for name in self.names)
        x = image.flatten(1)
        for layer in hidden:
            x = self.dropout(torch.relu(layer(x)))
        logits: Tensor = last(x)
        return logits
