"""Channels that the network takes apart again: of each piece something stays."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from labkit.convert import ExportOnnx
from labkit.errors import TechniqueError
from labkit.prune import PruneChannels, RemoveDeadUnits, read_structure
from labkit.variant import TensorSpec, Variant
from tests.graphs import build, constant, node, weight


class Halves(nn.Module):
    """One convolution whose first half is pooled in one way, the second in another; `even`: its code cuts in two."""

    def __init__(self, even=False):
        super().__init__()
        self.even = even
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.fc, self.widths = nn.Linear(16, 10), [8, 8]
        with torch.no_grad():
            self.conv.weight[:8] *= 0.1  # so that all of the first half matters least

    def forward(self, x):
        both = self.conv(x).relu()
        first, second = both.chunk(2, 1) if self.even else both.split(self.widths, 1)
        pooled = [nn.functional.max_pool2d(first, 2), nn.functional.avg_pool2d(second, 2)]
        return self.fc(torch.cat(pooled, 1).mean((2, 3)))


def halves(even=False):
    specs = [TensorSpec("x", "float32", ("batch", 3, 16, 16)), TensorSpec("y", "float32", ("batch", 10))]
    return Variant("halves", "torch", Halves(even).eval(), (specs[0],), (specs[1],))


def quiet_first_half(*taken, stored=(), channels=16):
    """As an ONNX graph, taken apart by `taken`: conv → h; f, s → the head."""
    values = numpy_helper.to_array(weight("w1", channels, 3, 3, 3)).copy()
    values[: channels // 2] *= 0.1
    nodes = [
        node("Conv", "x w1", "c", pads=[1] * 4),
        node("Relu", "c", "h"),
        *taken,
        node("MaxPool", "f", "fp", kernel_shape=[2, 2]),
        node("AveragePool", "s", "sp", kernel_shape=[2, 2]),
        node("Concat", "fp sp", "j", axis=1),
        node("GlobalAveragePool", "j", "g"),
        node("Flatten", "g", "v"),
        node("Gemm", "v w2", "y", transB=1),
    ]
    return build(nodes, [constant("w1", values), weight("w2", 10, channels), *stored])


def integers(name, *values):
    return constant(name, values, np.int64)


TAKEN = {
    "split": quiet_first_half(node("Split", "h", "f s", axis=1, num_outputs=2)),
    "slice": quiet_first_half(
        node("Slice", "h zero eight one", "f"),
        node("Slice", "h eight sixteen one", "s"),
        stored=[integers("zero", 0), integers("one", 1), integers("eight", 8), integers("sixteen", 16)],
    ),
    "gather": quiet_first_half(
        node("Gather", "h odd", "f", axis=1),
        node("Gather", "h even", "s", axis=1),
        stored=[integers("odd", *range(8)), integers("even", *range(8, 16))],
    ),
}


def widths(variant):
    graph = onnx.load_model_from_string(variant.payload).graph
    return {tensor.name: tensor.dims[0] for tensor in graph.initializer}


@pytest.mark.parametrize("ranking", ["layer", "global"])
@pytest.mark.parametrize("how", TAKEN)
def test_of_each_piece_one_channel_stays(how, ranking):
    assert widths(PruneChannels(pruning_ratio=0.5, ranking=ranking)(TAKEN[how]))["w1"] == 8


def test_of_each_piece_one_channel_stays_in_a_module_too():
    pruned = PruneChannels(pruning_ratio=0.5)(halves()).model
    kept = {tuple(row.flatten().tolist()) for row in pruned.conv.weight}
    first = [tuple(row.flatten().tolist()) in kept for row in Halves().conv.weight[:8]]
    assert sum(first) == 1 and pruned.widths == [1, 7]


def test_a_pruning_to_hardly_anything_keeps_as_many_channels_as_there_are_pieces():
    exported = ExportOnnx()(halves())
    assert widths(PruneChannels(pruning_ratio=0.99)(exported))["conv.weight"] == 2
    assert widths(PruneChannels(pruning_ratio=0.99, round_to=8)(exported))["conv.weight"] == 8


def test_dead_units_of_a_piece_go_but_for_one():
    variant = halves()
    with torch.no_grad():
        variant.model.conv.weight[:8], variant.model.conv.bias[:8] = 0, 0
    assert RemoveDeadUnits()(variant).model.conv.out_channels == 9
    assert widths(RemoveDeadUnits()(ExportOnnx()(variant)))["conv.weight"] == 9


def test_channels_that_are_taken_one_by_one_stay():
    variant = quiet_first_half(node("Split", "h", "f s", axis=1, num_outputs=2), channels=2)
    with pytest.raises(TechniqueError, match="w1 because each of its channels is taken by itself"):
        read_structure(variant)


def test_a_module_whose_code_cuts_channels_in_two_keeps_them():
    """Which of them matter least is not for its code to say, and so one half may lose more than the other."""
    with pytest.raises(TechniqueError, match="conv.weight because the code of Halves cannot do with fewer"):
        read_structure(halves(even=True))
