"""Batch norms for an ONNX file while it is trained, and none in what comes out.

An export folds batch norms into the convolutions before them: right for a network that runs, wrong for one that is to
be trained on. Without some channels every layer makes other numbers than it used to, the next layers make worse of
them, and nothing sets them right: the signal dies out, or training diverges. So for the time of the training each
convolution has a batch norm again, and begins with the mean and variance that its channels had in the whole network
(Jordan et al. 2023, REPAIR, does that to merge networks). Afterwards it is folded as the export did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor

from labkit.data import Dataset
from labkit.measure.lock import Patience
from labkit.onnx_graph import Graph, add_constant, fold_batch_norm, open_graph, replace_nodes
from labkit.onnx_graph.as_torch import OnnxModule
from labkit.prune.coupling.axis import Place
from labkit.train import in_words
from labkit.variant import Array, Variant

Staying = Mapping[Place, Array]
"""(Weight, axis) → which indices are left of the whole network's; what is not in it lost nothing."""
_BATCHES, _EPSILON = 16, 1e-5
_NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel of what a convolution makes: float64 [C], [C]."""

    mean: Array
    variance: Array


def moments(whole: Variant, dataset: Dataset, batch_size: int, seed: int) -> dict[str, Moments]:
    """Of each convolution of an ONNX variant, over some training samples: its output's name → its moments.

    None of a file that has norms of its own, none of a convolution whose output is the model's.
    """
    model = open_graph(whole.payload)
    if any(node.op_type in _NORMS for node in model.graph.node):
        return {}
    module = _Watched(model)
    train, patience = dataset.split("train"), Patience()
    order = np.random.default_rng(seed).permutation(len(train))[: _BATCHES * batch_size]
    for start in range(0, len(order), batch_size):
        feeds = whole.feeds(train.take(order[start : start + batch_size]).inputs)
        inputs = tuple(torch.from_numpy(feeds[spec.name]) for spec in whole.inputs)
        with patience.shared(), torch.inference_mode(), in_words(module, inputs):
            module(*inputs)
    return {name: _moments(np.stack(batches)) for name, batches in module.seen.items()}


def with_batch_norms(pruned: bytes, of_whole: Mapping[str, Moments], staying: Staying) -> bytes:
    """The file with a batch norm behind each convolution whose moments are known; these are now the channels' own.

    As it stands there, in evaluation mode, it changes nothing: only training sees the difference.
    """
    model = open_graph(pruned)
    graph, nodes = Graph(model), []
    for node in graph.nodes:
        nodes.append(node)
        known = of_whole.get(node.output[0])
        if known is None:
            continue
        stay = staying.get((node.input[1], 0), np.arange(len(known.mean)))
        name, inside = node.output[0], graph.new_name(f"{node.output[0]}/before_norm")
        scale = np.sqrt(known.variance[stay] + _EPSILON)
        parts = {
            "scale": scale,
            "shift": known.mean[stay],
            "mean": known.mean[stay],
            "variance": known.variance[stay],
        }
        names = [
            add_constant(model, graph.new_name(f"{name}/{part}"), values.astype(np.float32))
            for part, values in parts.items()
        ]
        node.output[0] = inside
        nodes.append(
            helper.make_node("BatchNormalization", [inside, *names], [name], f"{name}/norm", epsilon=_EPSILON)
        )
    replace_nodes(model, nodes)
    payload: bytes = model.SerializeToString()
    return payload


def without_batch_norms(trained: bytes) -> bytes:
    """The file with every batch norm folded into the convolution before it: the layers are what they were."""
    model = open_graph(trained)
    fold_batch_norm(model)
    payload: bytes = model.SerializeToString()
    return payload


class _Watched(OnnxModule):
    """A graph that notes, batch by batch, mean and mean square of what its convolutions make: [2, C] each."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.eval()
        self.seen: dict[str, list[Array]] = defaultdict(list)
        graph = Graph(model)
        self._watched = {
            node.output[0]
            for node in graph.nodes
            if node.op_type == "Conv"
            and node.output[0] not in graph.outputs
            and graph.only_consumer(node.input[1]) is not None
            and (weight := graph.constants.get(node.input[1])) is not None
            and weight.data_type == onnx.TensorProto.FLOAT
            and all(name in graph.constants for name in node.input[2:])  # or it could not be folded again
        }

    def settle(self, name: str, value: Tensor) -> Tensor:
        """Note it, and leave it as it is."""
        if name in self._watched:
            channels = value.double().movedim(1, 0).flatten(1)
            self.seen[name].append(torch.stack([channels.mean(1), channels.square().mean(1)]).numpy())
        return value


def _moments(batches: Array) -> Moments:
    """From mean and mean square of each batch: [batches, 2, C]."""
    mean, square = batches.mean(0)
    return Moments(mean, np.maximum(square - mean**2, 0))
