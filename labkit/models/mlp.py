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

from torch import Tensor, nn

DEFAULTS: dict[str, Any] = {"hidden": [1200, 1200], "dropout": 0.0}


class MLP(nn.Module):
    """Linear layers with ReLU between them, and dropout behind each hidden one.

    input [N, C, H, W] → logits [N, num_outputs]. At 1×28×28 and 10 outputs, with two hidden layers of 1,200 as in
    Hinton's teacher, it has 2,395,210 parameters.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = [math.prod(config["input_shape"]), *config["hidden"]]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(config["dropout"])]
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1], config["num_outputs"])
        self.config = dict(config)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        logits: Tensor = self.fc(self.hidden(image.flatten(1)))
        return logits
