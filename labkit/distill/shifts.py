"""The teacher's second looks: its answer to an image is the mean of those to the image moved a little each way.

A teacher trained on moved images knows that a digit stays the same digit when it moves; a student that sees no moved
image can learn it from the answers alone. Averaging over moved copies ("test-time augmentation") makes an answer
steadier, as that of several networks would be, whose mean Hinton, Vinyals and Dean (2015, section 2) distil as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from labkit.train import scored


class MeanOverShifts(nn.Module):
    """A network's mean answer to an image moved by up to `pixels` each way, its edges repeated.

    The mean of logits is the geometric mean of the probabilities, up to a factor that a softmax takes out again.
    """

    def __init__(self, network: nn.Module, pixels: int) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels

    def forward(self, image: Tensor) -> Tensor:
        """Images [N, C, H, W] → [N, classes]."""
        height, width = image.shape[2:]
        wide = pad(image, (self.pixels,) * 4, mode="replicate")
        places = range(2 * self.pixels + 1)
        moved = [wide[:, :, y : y + height, x : x + width] for y in places for x in places]
        return torch.stack([scored(self.network(each)).float() for each in moved]).mean(0)
