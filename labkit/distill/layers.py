"""What comes out of a network's layers, and which layer of a student answers to which of its teacher's.

Layers are named by their path in the network, as PyTorch prints it (`blocks.2`), and overheard while it computes.
Pairs are found by stages: a stage ends with the last feature map of its size, and the last stages of both belong
together, then the last but one, and so on, whatever their sizes are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from labkit.errors import TechniqueError, nearest
from labkit.technique import probe
from labkit.variant import Variant


@contextmanager
def overheard(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While this lasts, the dictionary holds what each of these layers put out last, in the order of computation."""
    heard: dict[str, Tensor] = {}

    def listen(layer: str) -> RemovableHandle:
        def hear(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                heard[layer] = output

        return network.get_submodule(layer).register_forward_hook(hear)

    handles = [listen(layer) for layer in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


class Shown(nn.Module):
    """A network that shows its layers: inputs → [N, C + K], the C logits, then what each layer's lens makes of it."""

    def __init__(self, network: nn.Module, layers: Sequence[str], lenses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.layers, self.lenses = network, tuple(layers), nn.ModuleList(lenses)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The network's inputs → its logits, and one row of numbers a layer, side by side."""
        with overheard(self.network, self.layers) as heard:
            logits = self.network(*inputs)
        rows = [lens(heard[layer]) for layer, lens in zip(self.layers, self.lenses, strict=True)]
        return torch.cat([logits, *rows], dim=1)


Shape = tuple[int, ...]
"""Of one sample."""


def shapes_of(variant: Variant) -> dict[str, Shape]:
    """Layer → the shape of what it puts out, in the order of computation; without the logits.

    Of layers that put out the very same tensor (a block, and the Sequential that ends with it) the first is named.
    """
    network = copy.deepcopy(variant.model).eval()
    feeds = probe(variant)
    inputs = [torch.from_numpy(feeds[spec.name]) for spec in variant.inputs]
    with torch.no_grad(), overheard(network, [name for name, _ in network.named_modules() if name]) as heard:
        logits = network(*inputs)
    found: dict[str, Shape] = {}
    seen = [logits]
    for layer, output in heard.items():
        if output.ndim > 1 and len(output) == len(logits) and not any(output is tensor for tensor in seen):
            found[layer] = tuple(output.shape[1:])
            seen.append(output)
    return found


def pair_stages(student: dict[str, Shape], teacher: dict[str, Shape]) -> list[tuple[str, str]]:
    """The last feature map of each stage, student's and teacher's, beginning with the first that both have.

    Where one of them has no feature maps: the last layer of each that puts out one row of numbers.
    """
    ours, theirs = _stage_ends(student), _stage_ends(teacher)
    if not ours or not theirs:
        ours, theirs = _last_row(student), _last_row(teacher)
    count = min(len(ours), len(theirs))
    return list(zip(ours[-count:], theirs[-count:], strict=True)) if count else []


def read_pairs(text: str, student: dict[str, Shape], teacher: dict[str, Shape]) -> list[tuple[str, str]]:
    """What "blocks.0:blocks.2,fc1" means: pairs student:teacher, or one name for both. TechniqueError for no layer."""
    pairs = []
    for item in text.split(","):
        ours, _, theirs = (part.strip() for part in item.partition(":"))
        pair = (ours, theirs or ours)
        for name, known, whose in zip(pair, (student, teacher), ("student", "teacher"), strict=True):
            if name not in known:
                raise TechniqueError(
                    f"layers={text!r}: the {whose} has no layer {name!r} that puts out numbers of its own; "
                    f"{nearest(name, list(known))}"
                )
        pairs.append(pair)
    return pairs


def _stage_ends(shapes: dict[str, Shape]) -> list[str]:
    ends: dict[Shape, str] = {}
    for layer, shape in shapes.items():
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            ends.pop(shape[1:], None)  # so that the order is that of the last ones
            ends[shape[1:]] = layer
    return list(ends.values())


def _last_row(shapes: dict[str, Shape]) -> list[str]:
    return [layer for layer, shape in shapes.items() if len(shape) == 1][-1:]
