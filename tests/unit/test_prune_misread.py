"""Graphs in which a rule does not hold: what it is about stays whole, and the rest is pruned."""

import numpy as np
import onnx
import pytest
from onnx import helper

from labkit.errors import TechniqueError
from labkit.prune import PruneChannels
from tests.graphs import build, constant, node, weight


def widths(variant):
    return {
        each.name: each.dims[0] for each in onnx.load_model_from_string(variant.payload).graph.initializer
    }


HEAD = [node("GlobalAveragePool", "z", "g"), node("Flatten", "g", "v"), node("Gemm", "v w4", "y", transB=1)]
SIGMOID_AND_SUM = [
    node("Conv", "x w1", "c", pads=[1] * 4),
    node("Sigmoid", "c", "s"),
    node("ReduceSum", "s ax", "rs", keepdims=1),  # a channel of zeros counts ½ here
]


def summed(*behind, **stored):
    weights = [weight("w1", 16, 3, 3, 3), constant("ax", [1], np.int64), weight("w4", 10, 12)]
    return build([*SIGMOID_AND_SUM, *behind, *HEAD], [*weights, *(weight(n, *s) for n, s in stored.items())])


def test_what_a_rule_misreads_stays_whole_and_the_rest_is_pruned():
    behind = [node("Conv", "s w2", "c2", pads=[1] * 4), node("Add", "c2 rs", "a"), node("Conv", "a w3", "z")]
    variant, told = summed(*behind, w2=(10, 16, 3, 3), w3=(12, 10, 1, 1)), []
    pruned = PruneChannels(pruning_ratio=0.5)(
        variant, None, lambda fraction, message: told.append((fraction, message))
    )
    assert [widths(pruned)[name] for name in ("w1", "w2", "w3")] == [16, 5, 6]
    assert any("w1 because without some of its channels the outputs" in message for _, message in told)
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)


def test_where_no_group_can_go_it_is_said_why():
    variant = build(
        [*SIGMOID_AND_SUM, node("GlobalAveragePool", "s", "g"), node("GlobalAveragePool", "rs", "h"),
         node("Add", "g h", "a"), node("Flatten", "a", "v"), node("Gemm", "v w4", "y", transB=1)],
        [weight("w1", 16, 3, 3, 3), constant("ax", [1], np.int64), weight("w4", 10, 16)],
    )  # fmt: skip
    with pytest.raises(TechniqueError, match="no channel of 'user' can be removed: .*; w1 because without"):
        PruneChannels(pruning_ratio=0.5)(variant)


@pytest.mark.parametrize("axes", [[1, 2, 3], [2, 1, 3], [-3, -2, -1]])
def test_a_resize_that_is_told_of_channels_too_follows_the_cut(axes):
    sizes = {1: 16, 2: 32, 3: 32}
    nodes = [
        node("Conv", "x w1", "c", pads=[1] * 4),
        helper.make_node("Resize", ["c", "", "", "sizes"], ["r"], axes=axes, mode="nearest"),
        node("Conv", "r w2", "z", pads=[1] * 4),
        *HEAD,
    ]
    stored = [weight("w1", 16, 3, 3, 3), weight("w2", 12, 16, 3, 3), weight("w4", 10, 12)]
    stored.append(constant("sizes", [sizes[axis % 4] for axis in axes], np.int64))
    pruned = PruneChannels(pruning_ratio=0.5)(build(nodes, stored))
    assert [widths(pruned)[name] for name in ("w1", "w2")] == [8, 6]
