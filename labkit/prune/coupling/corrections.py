"""What the layers of a module know of their sizes, once their tensors are cut: whole numbers kept beside them.

No graph tells where code keeps them. So they are found by what they equal: the size of a tensor, the number of an
attention's heads, the widths that channels are split or viewed by. A divisor may equal a size by chance. So numbers
that may be anything follow the cut of those groups alone that cannot go without, and `fitting` finds these by trying.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from labkit.onnx_graph import Graph
from labkit.prune.coupling.axis import Numbers
from labkit.prune.coupling.coupling import Coupling

_KNOWN = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.Embedding,
    nn.PReLU,
)
_SCOPES = "pkg.torch.onnx.name_scopes"


def own_tensors(owner: nn.Module, path: str = "") -> Iterator[tuple[nn.Module, str, str, Tensor]]:
    """Those of one layer alone, without the layers inside it."""
    for key, tensor in (*owner._parameters.items(), *owner._buffers.items()):
        if tensor is not None:
            yield owner, key, f"{path}.{key}" if path else key, tensor


def correct_layers(before: nn.Module, after: nn.Module, graph: onnx.ModelProto) -> None:
    """Let every layer of a known kind know its new sizes; the groups of a convolution stand in the graph."""
    groups = {
        node.input[1]: each.i for node in graph.graph.node for each in node.attribute if each.name == "group"
    }
    for (path, layer), old in zip(after.named_modules(), before.modules(), strict=True):
        weight = getattr(layer, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.groups = int(groups.get(f"{path}.weight", layer.groups))
            sizes = (shape[0], shape[1] * layer.groups)
            layer.in_channels, layer.out_channels = sizes if layer.transposed else sizes[::-1]
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = shape
        elif isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
            layer.num_features = len(layer.running_mean)
        elif isinstance(layer, nn.modules.batchnorm._NormBase) and shape:
            layer.num_features = shape[0]
        elif isinstance(layer, nn.GroupNorm) and isinstance(old, nn.GroupNorm) and shape:
            layer.num_groups = shape[0] * old.num_groups // old.num_channels
            layer.num_channels = shape[0]
        elif isinstance(layer, nn.Embedding):
            layer.num_embeddings, layer.embedding_dim = shape
        elif isinstance(layer, nn.PReLU):
            layer.num_parameters = shape[0]


def correct_numbers(
    before: nn.Module, after: nn.Module, coupling: Coupling, removed: Sequence[Numbers]
) -> set[tuple[str, str]]:
    """A layer of any other kind: a whole number that told the size of one of its own tensors tells the new one.

    Where axes of one size now differ, the vectors decide: biases and scales are as wide as what the layer makes.
    removed: of the units that are gone from `after`, those that numbers follow. Returns the (layer, number) that
    vectors have decided, be it that they stay.
    """
    shapes, settled = _shapes(before, coupling, removed), set[tuple[str, str]]()
    for (path, layer), old in zip(after.named_modules(), before.modules(), strict=True):
        pairs = [(tensor.shape, shapes[id(tensor)]) for *_, tensor in own_tensors(old)]
        for name, value in [] if isinstance(old, _KNOWN) else list(vars(layer).items()):
            axes = [
                (len(shape), left)
                for shape, lefts in pairs
                for size, left in zip(shape, lefts, strict=True)
                if type(value) is int and size == value
            ]
            by_vectors = {left for rank, left in axes if rank == 1}
            told = by_vectors or {left for _, left in axes}
            if len(told) == 1:
                setattr(layer, name, *told)
            if len(by_vectors) == 1:
                settled.add((path, name))
    return settled


def _shapes(module: nn.Module, coupling: Coupling, removed: Sequence[Numbers]) -> dict[int, tuple[int, ...]]:
    """The shape of each tensor without these units, under its id: one that is shared has one name in the graph."""
    staying, shapes = coupling.indices(removed), dict[int, tuple[int, ...]]()
    for path, owner in module.named_modules():
        for *_, name, tensor in own_tensors(owner, path):
            sizes = enumerate(tensor.shape)
            shape = tuple(len(staying.get((name, axis), range(size))) for axis, size in sizes)
            if shape != tensor.shape or id(tensor) not in shapes:
                shapes[id(tensor)] = shape
    return shapes


def correct_heads(narrow: nn.Module, coupling: Coupling, removed: Sequence[Numbers]) -> None:
    """Attention keeps its number of heads, and often their whole width, as plain numbers beside its layers."""
    gone = np.concatenate([np.empty(0, np.int64), *removed])
    for group in coupling.groups:
        heads, lost = len(group), int(np.isin(group.units, gone).sum())
        widths: dict[str, set[int]] = defaultdict(set)
        for member in (*group.of_role("makes"), *group.of_role("reads")) if lost else ():
            if member.indices.shape[1] > 1:
                widths[member.tensor.rpartition(".")[0].rpartition(".")[0]].add(member.indices.shape[1])
        for path, found in widths.items():
            owner = narrow.get_submodule(path)
            numbers = {name: value for name, value in vars(owner).items() if type(value) is int}
            for name, value in numbers.items():
                if value == heads and "head" in name and not name.endswith(("dim", "size")):
                    setattr(owner, name, value - lost)
                elif value % heads == 0 and value // heads in found:
                    setattr(owner, name, value - lost * (value // heads))


def correct_indices(narrow: nn.Module, whole: onnx.ModelProto, cut: onnx.ModelProto) -> None:
    """Buffers that channels are picked by hold the places where these are in the graph that was cut."""
    before, after, buffers = Graph(whole), Graph(cut), dict(narrow.named_buffers())
    for node in (node for node in after.nodes if node.op_type == "Gather"):
        name, values = before.producer[node.output[0]].input[1], after.constant(node.input[1])
        if name == node.input[1] or values is None:
            continue
        while name in before.producer and before.producer[name].op_type in ("Cast", "Identity", "Reshape"):
            name = before.producer[name].input[0]
        if name in buffers:
            path, _, key = name.rpartition(".")
            setattr(narrow.get_submodule(path), key, torch.from_numpy(values.copy()))


def correct_widths(
    before: nn.Module,
    after: nn.Module,
    coupling: Coupling,
    removed: Sequence[Numbers],
    settled: set[tuple[str, str]],
) -> None:
    """Code that splits, slices or reshapes its channels keeps their widths: a list of them, or single numbers.

    What was corrected before, the heads of an attention say, is not what a node was told any more, and stays. So do
    lists of anything but whole numbers: tensors, for one, cannot be compared.
    removed: of the units that are gone from `after`, those that numbers follow; settled: by `correct_numbers`.
    """
    graph = Graph(coupling.model)
    for node, sizes, stay in coupling.widths(removed):
        for path in _owners(graph, node):
            kept, owner = vars(before.get_submodule(path)), after.get_submodule(path)
            for name, value in list(vars(owner).items()):
                if (path, name) in settled or not _whole_numbers(value) or value != kept[name]:
                    continue
                told = {new for old, new in zip(sizes, stay, strict=True) if old == value}
                if type(value) is int and len(told) == 1:
                    setattr(owner, name, *told)
                elif type(value) is not int and list(value) == sizes:
                    setattr(owner, name, type(value)(stay))


def _whole_numbers(value: object) -> bool:
    """Whether it is a whole number, or a plain list or tuple of nothing else."""
    values = value if isinstance(value, list | tuple) else [value]
    return type(value) in (int, list, tuple) and all(type(each) is int for each in values)


def _owners(graph: Graph, node: onnx.NodeProto) -> set[str]:
    """The module whose code made the node; where the graph does not tell, all that next read what it makes are in."""
    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), None)
    if scopes is not None:
        return {ast.literal_eval(scopes)[-2]}  # the last is the node itself
    paths, seen, names = {""}, set[str](), list(node.output)
    while names:
        name = names.pop()
        for user in () if name in seen else graph.consumers[name]:
            stored = [each for each in user.input if each in graph.constants and "." in each]
            names += [] if stored else user.output
            for each in stored:
                layers = each.split(".")[:-2]  # without the layer itself and its tensor
                paths |= {".".join(layers[:depth]) for depth in range(len(layers) + 1)}
        seen.add(name)
    return paths
