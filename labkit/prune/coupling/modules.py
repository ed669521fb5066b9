"""The same couplings for a PyTorch module: its graph is read, its own parameters are cut, and it stays a module.

The graph is exported without the rewritings that an export usually makes: batch norms stay, every parameter keeps
its name, and so what is found there holds for the module. What the graph cannot tell is how the module's own code
speaks of sizes. Numbers that layers keep (`out_channels`, `groups`, `num_heads`) are corrected, those that only equal
a size where nothing else helps; a size that is written out in a `forward` cannot be, and the channels that depend on it
stay: `fitting` finds out by trying.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from labkit.convert.torch_to_onnx import check_not_training, dynamic_shapes, example, innermost, quiet
from labkit.errors import TechniqueError
from labkit.onnx_graph import keep_used, open_graph
from labkit.prune.coupling.axis import Numbers
from labkit.prune.coupling.corrections import (
    correct_heads,
    correct_indices,
    correct_layers,
    correct_numbers,
    correct_widths,
    own_tensors,
)
from labkit.prune.coupling.coupling import EVERYWHERE, WRITING, Coupling
from labkit.prune.coupling.group import Group
from labkit.variant import Variant

_OPSET = 18
_TOLERANCE = 1e-3


def trace(variant: Variant) -> onnx.ModelProto:
    """The graph of a PyTorch variant, its parameters under their own names; TechniqueError if torch cannot trace it."""
    from onnxscript.optimizer import fold_constants

    check_not_training(variant)
    with quiet():
        try:
            program = torch.onnx.export(
                variant.model,
                example(variant, None),
                input_names=[spec.name for spec in variant.inputs],
                output_names=[spec.name for spec in variant.outputs],
                opset_version=_OPSET,
                dynamo=True,
                dynamic_shapes=dynamic_shapes(variant),
                optimize=False,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - with dynamo=True it is always there
            stored = set(program.model.graph.initializers)
            fold_constants(
                program.model,
                should_fold=lambda node: (
                    False
                    if any(value is not None and value.name in stored for value in node.inputs)
                    else None
                ),
            )
        except Exception as error:  # whatever the model's own forward raises comes out here, wrapped
            raise TechniqueError(f"PyTorch cannot trace {variant.name!r}: {innermost(error)}") from None
    model = open_graph(program.model_proto.SerializeToString())
    keep_used(model, model.graph.node)
    return model


def narrow_module(module: nn.Module, coupling: Coupling, removed: Sequence[Numbers]) -> nn.Module:
    """A copy of the module without these units: parameters and buffers cut, and what the layers know of their sizes.

    coupling: of the module's `trace`; removed: numbers from the `units` of its groups. The numbers that code keeps
    follow the cut of the groups `coupling.followed`, and no other: so a cut is made as it was tried.
    """
    narrow = copy.deepcopy(module)
    cut: dict[int, nn.Parameter | Tensor] = {}  # a parameter that two layers share stays shared
    tensors = list(_tensors(narrow))
    staying = coupling.indices(removed)
    for _, _, name, tensor in tensors:
        values = tensor.detach()
        for axis in (axis for place, axis in staying if place == name):
            values = values.index_select(axis, torch.from_numpy(staying[name, axis]))
        if values.shape != tensor.shape and id(tensor) not in cut:
            is_parameter = isinstance(tensor, nn.Parameter)
            cut[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if is_parameter else values
    for owner, key, _, tensor in tensors:
        if id(tensor) in cut:
            setattr(owner, key, cut[id(tensor)])
    followed = np.concatenate([np.empty(0, np.int64), *(group.units for group in coupling.followed)])
    told = [units[np.isin(units, followed)] for units in removed]
    cut_graph = coupling.remove(removed)
    correct_layers(module, narrow, cut_graph)
    settled = correct_numbers(module, narrow, coupling, told)
    correct_indices(narrow, coupling.model, cut_graph)
    correct_heads(narrow, coupling, removed)
    correct_widths(module, narrow, coupling, told, settled)
    return narrow


def masked_module(
    module: nn.Module, coupling: Coupling, removed: Sequence[Numbers], roles: Sequence[str] = WRITING
) -> nn.Module:
    """A copy of the module with these units zero in all places of the roles (`Coupling.masked`)."""
    masked = copy.deepcopy(module)
    tensors = {name: tensor for _, _, name, tensor in _tensors(masked)}
    with torch.no_grad():
        for name, axis, indices in coupling.stand(removed, roles):
            if name in tensors:
                tensors[name].index_fill_(axis, torch.from_numpy(indices), 0)
    return masked


def fitting(variant: Variant, coupling: Coupling) -> Coupling:
    """`coupling` with only those groups that the module's code can do with fewer units of.

    Each group that makes trouble is found by taking out units of it alone, or beside those that make none together;
    its reason is noted in `whole`, unless all groups can go together. Numbers that the code keeps are left alone, for
    they may equal a size by chance; groups that make trouble so, and none where numbers follow their cut, are noted
    in `followed`.
    """
    inputs, name = example(variant, None), type(variant.model).__name__

    def trouble(groups: Sequence[Group], followed: Sequence[Group]) -> str:
        return _trouble(variant, dataclasses.replace(coupling, followed=tuple(followed)), groups, inputs)

    if not trouble(coupling.groups, []):
        return coupling
    fit: list[Group] = []
    followed: list[Group] = []
    troubles: dict[Group, str] = {}
    for group in coupling.groups:
        why = trouble([group], [])
        if not why:
            fit.append(group)
        elif not trouble([group], [group]):
            fit.append(group)
            followed.append(group)
        else:
            troubles[group] = why
    if trouble(fit, followed):
        candidates, alone, fit, followed = fit, set(followed), [], []
        for group in candidates:
            ways = [[*followed, group], followed]
            if group not in alone:  # first what it could do with alone; beside others that may not be enough
                ways.reverse()
            way = next((way for way in ways if not trouble([*fit, group], way)), None)
            if way is None:
                troubles[group] = trouble([*fit, group], ways[0])
            else:
                fit.append(group)
                followed = way
    # one number may tell the widths of several groups: these go together or not at all
    together = [*fit, *troubles]
    for way in ([*followed, *troubles], together) if troubles else ():
        if not trouble(together, way):
            followed, troubles = way, {}
            break
    reasons = {group: f"the code of {name} cannot do with fewer: {why}" for group, why in troubles.items()}
    return dataclasses.replace(coupling.without(reasons), followed=tuple(followed))


def _trouble(
    variant: Variant, coupling: Coupling, groups: Sequence[Group], inputs: tuple[Tensor, ...]
) -> str:
    """What goes wrong in the module without half of the units of the groups; "" if nothing does.

    With gradients, for what is pruned is trained: torch's attention is less strict without.
    """
    removed = [group.half() for group in groups]
    with torch.enable_grad():
        try:
            found = _answers(narrow_module(variant.model, coupling, removed), inputs)
        except Exception as error:  # anything may be written in a forward
            return innermost(error)
        expected = _answers(masked_module(variant.model, coupling, removed, EVERYWHERE), inputs)
    for first, second in zip(found, expected, strict=True):
        near = _TOLERANCE * float(second.abs().max())
        if first.shape != second.shape or not torch.allclose(first, second, _TOLERANCE, near):
            return "without it the outputs are others"
    return ""


def _answers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    result, _ = torch.utils._pytree.tree_flatten(module(*inputs))
    return [value.detach() for value in result if isinstance(value, Tensor)]


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, str, Tensor]]:
    """Every parameter and buffer: the layer that holds it, its name there, and its name in the module."""
    for path, owner in module.named_modules():
        yield from own_tensors(owner, path)
