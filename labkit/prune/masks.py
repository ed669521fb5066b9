"""From scores to masks: which weights are zeroed, and exactly how many.

Where weights compete is the `scope`:

    global   in the whole network: round(sparsity · n) of all n go, wherever they are
    layer    in their layer: round(sparsity · n) of each layer's n
    n:m      in runs of m along the input axis, where sparsity · m of every m go: 2:4, which some GPUs compute at
             twice the speed. A run that the axis has no m left for is filled up with zeros, which go first; so the
             rule holds on any axis, and of one input channel nothing goes
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from labkit.errors import TechniqueError
from labkit.onnx_graph.as_torch import OnnxModule

SCOPES = ("global", "layer", "n:m")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ATTENTION = {
    "in_proj_weight": "in_proj",
    "q_proj_weight": "q_proj",
    "k_proj_weight": "k_proj",
    "v_proj_weight": "v_proj",
}
"""What a `MultiheadAttention` calls its input projections, and what it would call them as layers."""
_STORE_IT = {
    "weight_g": "torch.nn.utils.remove_weight_norm(layer)",
    "weight_u": "torch.nn.utils.remove_spectral_norm(layer)",
    "weight_mask": "torch.nn.utils.prune.remove(layer, 'weight')",
}
"""What a layer has beside a weight that a hook computes, and what removes the hook."""


@dataclass(frozen=True)
class _Stored:
    """A weight: the layer that keeps it and under which name, its bias if it has one, and the axis of its inputs.

    `outputs`: a mask of the weight's shape → the same numbers, a row for each entry of the bias.
    """

    layer: nn.Module
    key: str
    weight: Tensor
    bias: Tensor | None
    input_axis: int
    outputs: Callable[[Tensor], Tensor]


def _by_row(mask: Tensor) -> Tensor:
    """[out, in, …] → [out, in · …]."""
    return mask.flatten(1)


def _stored(module: nn.Module) -> dict[str, _Stored]:
    """Layer → its weight, of all convolutions and linear layers, those within an attention too; shared ones twice."""
    found: dict[str, _Stored] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
            found[name] = _Stored(layer, "weight", layer.weight, layer.bias, 1, _by_row)
        elif isinstance(layer, _TRANSPOSED):
            outputs = functools.partial(_by_output, layer.groups)
            found[name] = _Stored(layer, "weight", layer.weight, layer.bias, 0, outputs)
        elif isinstance(layer, nn.MultiheadAttention):
            keys = [key for key in _ATTENTION if getattr(layer, key) is not None]
            biases = (
                (None,) * len(keys) if layer.in_proj_bias is None else layer.in_proj_bias.chunk(len(keys))
            )
            for key, bias in zip(keys, biases, strict=True):
                path = f"{name}.{_ATTENTION[key]}".removeprefix(".")
                found[path] = _Stored(layer, key, getattr(layer, key), bias, 1, _by_row)
    return found


def _by_output(groups: int, mask: Tensor) -> Tensor:
    """Of a transposed convolution: [in, out of a group, …] → [out, in of a group · …]."""
    return mask.reshape(groups, -1, *mask.shape[1:]).transpose(1, 2).flatten(0, 1).flatten(1)


def prunable_layers(module: nn.Module) -> dict[str, Tensor]:
    """Layer → weight of all convolutions and linear layers, in the network's order, shared ones once.

    Weights are [out, in, …], those of a transposed convolution [in, out, …]. The input projections of a
    `MultiheadAttention` are a layer of their own, "in_proj". The weights of an ONNX graph have their own names, and
    those of a MatMul are [in, out].
    """
    if isinstance(module, OnnxModule):
        return module.weights()
    return {name: stored.weight for name, stored in _prunable(module).items()}


def _prunable(module: nn.Module) -> dict[str, _Stored]:
    check_stored(module)
    names: dict[Tensor, str] = {}
    found = _stored(module)
    for name, stored in found.items():
        names.setdefault(stored.weight, name)
    return {name: found[name] for name in names.values()}


def check_stored(module: nn.Module) -> None:
    """Raise TechniqueError for a layer that computes its weight anew each time: what is written into it is lost."""
    for name, stored in _stored(module).items():
        if not isinstance(stored.weight, nn.Parameter):
            kept = (each for beside, each in _STORE_IT.items() if hasattr(stored.layer, beside))
            advice = next(kept, f"torch.nn.utils.parametrize.remove_parametrizations(layer, {stored.key!r})")
            raise TechniqueError(
                f"the {stored.key} of {name!r} is computed anew for each batch (weight_norm does so): store it first, "
                f"with {advice}"
            )


def prunable_weights(module: nn.Module) -> list[Tensor]:
    """The weights of `prunable_layers`."""
    return list(prunable_layers(module).values())


def input_axes(module: nn.Module) -> list[int]:
    """Of each of the `prunable_weights` the axis of its inputs, in a file as its graph has it."""
    if isinstance(module, OnnxModule):
        return list(module.input_axes().values())
    return [stored.input_axis for stored in _prunable(module).values()]


def sparsity_of(weights: Sequence[Tensor]) -> float:
    """The fraction of all these weights that is zero."""
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def lowest(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Masks of the round(sparsity · n) lowest of all n scores: True for what goes.

    scores: any shapes; returns one boolean mask each, of its shape. Of equal scores the first go, so that the
    number is exact; one weight at least always stays.
    """
    flat = torch.cat([score.flatten() for score in scores])
    count = min(round(sparsity * len(flat)), len(flat) - 1)
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.argsort(stable=True)[:count]] = True
    parts = torch.split(mask, [score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def lowest_of_every(m: int, score: Tensor, zeros: int, axis: int = 1) -> Tensor:
    """The mask of the `zeros` lowest of every m scores along `axis`: [out, in, …] → the same shape, bool."""
    runs = score.movedim(axis, -1)
    runs = pad(runs, (0, -runs.shape[-1] % m), value=-torch.inf)
    runs = runs.reshape(*runs.shape[:-1], runs.shape[-1] // m, m)  # -1 would be unclear for an empty weight
    mask = torch.zeros(runs.shape, dtype=torch.bool)
    mask.scatter_(-1, runs.argsort(dim=-1, stable=True)[..., :zeros], True)
    return mask.flatten(-2)[..., : score.shape[axis]].movedim(-1, axis)


def choose(
    weights: Sequence[Tensor],
    scores: Sequence[Tensor],
    sparsity: float,
    scope: str,
    group_size: int,
    axes: Sequence[int],
) -> list[Tensor]:
    """Masks of what goes in `scope`, one of SCOPES; what is zero already goes first, whatever its score.

    weights, scores: of the same shapes, any; group_size: the m of "n:m"; axes: the `input_axes`, which it runs along.
    """
    ranked = [s.masked_fill(w == 0, -torch.inf) for w, s in zip(weights, scores, strict=True)]
    if scope == "n:m":
        zeros = round(sparsity * group_size)
        pairs = zip(ranked, axes, strict=True)
        return [lowest_of_every(group_size, each, zeros, axis) for each, axis in pairs]
    groups = [ranked] if scope == "global" else [[each] for each in ranked]
    return [mask for group in groups for mask in lowest(group, sparsity)]


def zero(module: nn.Module, masks: Sequence[Tensor]) -> None:
    """Write plain zeros into the prunable weights of `module` wherever their mask is True."""
    with torch.no_grad():
        for weight, mask in zip(prunable_weights(module), masks, strict=True):
            weight.masked_fill_(mask, 0.0)


def silence(module: nn.Module, masks: Sequence[Tensor]) -> None:
    """`zero`, and a unit that has lost all its weights loses its bias too: for a module in training.

    What such a unit gives never changes; the biases of those that read it learn it as well.
    """
    zero(module, masks)
    if isinstance(module, OnnxModule):  # whose biases may be anything that is added
        return
    with torch.no_grad():
        for stored, mask in zip(_prunable(module).values(), masks, strict=True):
            if stored.bias is not None:
                stored.bias.masked_fill_(stored.outputs(mask).all(1), 0.0)
