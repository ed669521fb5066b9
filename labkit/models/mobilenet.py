"""MobileNet: a convolution taken apart into one that looks around and one that mixes channels.

A 3×3 convolution from C to C channels costs 9·C² multiply-adds a pixel. Looking around within each channel (a
*depthwise* convolution, 9·C) and then mixing the channels at each pixel (1×1, C²) costs about a ninth of it. The
price is paid later: a depthwise channel is made of nine numbers, each channel's nine have their own range, and one
scale for a whole tensor of them rounds the small ones away. That makes this the network on which per-tensor
int8 fails first (Jacob et al. 2018, section 3; Nagel et al. 2019, figure 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

DEFAULTS: dict[str, Any] = {
    "stages": [16, 32, 64],
    "blocks": [1, 3, 4],
    "expansion": 4,
    "hidden": 256,
    "first_stride": 1,
    "dropout": 0.0,
}


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Widen (1×1), look around (3×3 depthwise), narrow again (1×1); no ReLU after the last, which loses least.

    The wide part lies inside and the narrow ends carry the residual stream, the inverse of a ResNet's bottleneck
    (Sandler et al. 2018, section 3.3). Input and output are added where their shapes agree.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = [*_conv_bn(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen, *_conv_bn(inner, inner, 3, stride, groups=inner), nn.ReLU6(), *_conv_bn(inner, outputs)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """X [N, inputs, H, W] → [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """MobileNetV2 sized for images of about 28×28 (Sandler et al. 2018, table 2 with three stages instead of seven).

    Stage i has blocks[i] inverted residuals of stages[i] channels, `expansion` times as many inside. As in the
    paper the first stage widens nothing, and a 1×1 convolution to `hidden` channels stands before the average.
    Every later stage halves the image; a `first_stride` of 2 halves it in the stem too.
    input [N, C, H, W] → logits [N, num_outputs]. At 1×28×28 and 10 outputs: 166,666 parameters.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        stages = config["stages"]
        stem = _conv_bn(config["input_shape"][0], stages[0], 3, config["first_stride"])
        self.stem = nn.Sequential(*stem, nn.ReLU6())
        blocks: list[nn.Module] = []
        inputs = stages[0]
        for index, (outputs, count) in enumerate(zip(stages, config["blocks"], strict=True)):
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                expansion = config["expansion"] if index > 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv_bn(inputs, config["hidden"]), nn.ReLU6())
        self.dropout = nn.Dropout(config["dropout"])
        self.fc = nn.Linear(config["hidden"], config["num_outputs"])
        self.config = dict(config)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, C, H, W] → logits [N, num_outputs]."""
        x = self.head(self.blocks(self.stem(image)))
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits
