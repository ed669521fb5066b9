"""Channels leave architectures that nobody wrote for it: what is left equals the original with these channels at zero.

Both faces, the module and the file, are held against the original with parameters set to zero.
What is masked is where channels are made, scaled and shifted; what reads them is left as it was, so that a column
too many, too few, or the wrong one shows.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import onnxscript.optimizer
import pytest
import torch

from labkit.convert import ExportOnnx
from labkit.onnx_graph import open_graph
from labkit.prune import PruneChannels
from labkit.prune.coupling import find_coupling
from labkit.prune.coupling.modules import fitting, masked_module, narrow_module, trace
from labkit.runtimes import get_runtime
from tests.architectures import ARCHITECTURES, IMAGE, make
from tests.graphs import build, constant, node, weight

IMAGES = np.random.default_rng(1).standard_normal((3, *IMAGE)).astype(np.float32)
everywhere = pytest.mark.parametrize("name", ARCHITECTURES)

# The groups of each architecture that can lose channels in the graph, in its order: how many units each has.
GROUPS = {
    "resnet_basic": [8, 8, 16, 16, 16],
    "resnet_bottleneck": [8, 6, 6, 16, 8, 8, 16],
    "resnet_padded": [8, 8, 8, 16],
    "resnext": [8, 8, 12, 8, 8, 12],
    "mobilenet_v2": [8, 24, 12, 36, 36, 16],
    "mobilenet_v3": [8, 24, 6, 12, 36, 9],
    "efficientnet": [8, 32, 4, 12, 48, 4, 24],
    "densenet": [8, 8, 4, 8, 4, 8, 4, 10, 8, 4, 8, 4],
    "inception": [8, 8, 6, 12, 4, 6, 5, 8, 6, 12, 4, 6, 5],
    "shufflenet": [4, 4, 8, 8, 8, 24],
    "shufflenet_grouped": [4, 16],
    "vgg": [12, 20, 40, 24],
    "vit": [4, 48, 6, 48],
    "unet": [8, 12, 16, 10, 12, 8],
    "group_norm": [6, 4],
}


@functools.cache
def traced(name):
    variant = make(name)
    return variant, trace(variant)


@functools.cache
def as_a_file(name):
    """The graph as an exporter optimises it: batch norms folded, weights turned over, their names gone."""
    return open_graph(onnxscript.optimizer.optimize(traced(name)[1]).SerializeToString())


def some(groups, share=0.4, seed=0):
    random = np.random.default_rng(seed)
    return [
        group.units[random.permutation(len(group))[: max(1, int(share * len(group)))]] for group in groups
    ]


def run(variant, model):
    file = dataclasses.replace(variant, format="onnx", model=model.SerializeToString())
    with get_runtime("onnxruntime").load(file) as session:
        return session.run({variant.inputs[0].name: IMAGES})[variant.outputs[0].name]


def furthest(first, second):
    return float(np.abs(first - second).max() / max(np.abs(second).max(), 1e-9))


def parameters(model):
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


@everywhere
def test_every_group_is_found_and_only_the_answers_stay_whole(name):
    coupling = find_coupling(as_a_file(name))
    assert [len(group) for group in coupling.groups] == GROUPS[name]
    reasons = set(coupling.whole.values())
    assert "they are what the model puts out as 'logits'" in reasons
    allowed = {"vit": "Expand", "shufflenet_grouped": "all of its channels hang together"}
    assert all("puts out" in why or allowed.get(name, "nothing") in why for why in reasons), reasons


@everywhere
def test_a_file_without_some_channels_equals_itself_with_them_at_zero(name):
    variant, model = make(name), as_a_file(name)
    coupling = find_coupling(model)
    removed = some(coupling.groups)
    narrow, masked = coupling.remove(removed), coupling.masked(removed)
    onnx.checker.check_model(narrow, full_check=True)
    expected = run(variant, masked)
    assert furthest(run(variant, narrow), expected) < 1e-5
    assert furthest(run(variant, model), expected) > 1e-3, "nothing was at zero"
    assert parameters(narrow) < 0.8 * parameters(model)


@everywhere
def test_a_module_without_some_channels_equals_itself_with_them_at_zero_and_exports(name):
    variant, model = traced(name)
    coupling = fitting(variant, find_coupling(model))
    written_out = 1 if name == "resnet_padded" else 0  # its shortcut pads by a number in its code
    assert len(coupling.groups) == len(GROUPS[name]) - written_out
    removed = some(coupling.groups)
    narrow, masked = (
        narrow_module(variant.model, coupling, removed),
        masked_module(variant.model, coupling, removed),
    )
    with torch.no_grad():
        found, expected = (module(torch.from_numpy(IMAGES)).numpy() for module in (narrow, masked))
    assert furthest(found, expected) < 1e-5
    sizes = [sum(each.numel() for each in module.parameters()) for module in (variant.model, narrow)]
    assert sizes[1] < 0.8 * sizes[0]
    exported = ExportOnnx()(dataclasses.replace(variant, model=narrow))
    with get_runtime("onnxruntime").load(exported) as session:
        assert furthest(session.run({"image": IMAGES})["logits"], found) < 1e-5


@everywhere
def test_channels_that_are_read_where_they_are_not_are_noticed(name):
    variant, model = make(name), as_a_file(name)
    coupling = find_coupling(model)
    removed = some(coupling.groups)
    expected = run(variant, coupling.masked(removed))
    readers = {(m.tensor, m.axis) for group in coupling.groups for m in group.members if m.role == "reads"}
    assert readers
    unnoticed = []
    for place in readers:
        misplaced = {**coupling._places, place: np.roll(coupling._places[place], 1)}
        misread = dataclasses.replace(coupling, _places=misplaced)
        if furthest(run(variant, misread.remove(removed)), expected) <= 1e-4:
            unnoticed.append(place)
    assert len(unnoticed) <= len(readers) / 5, unnoticed  # a squeeze of few units may be dead behind its ReLU


# --- what the graph does with channels ---


def test_two_layers_that_share_a_weight_lose_the_same_channels():
    nodes = [
        node("Conv", "x w1", "a", pads=[1] * 4),
        node("Conv", "a w2", "b", pads=[1] * 4),
        node("Relu", "b", "r"),
        node("Conv", "r w2", "c", pads=[1] * 4),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3", "y"),
    ]
    shared = build(nodes, [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("w3", 8, 10)])
    (group,) = find_coupling(open_graph(shared.payload)).groups
    assert {(m.tensor, m.axis) for m in group.members} == {("w1", 0), ("w2", 0), ("w2", 1), ("w3", 0)}


MOVES = {
    "split": [node("Split", "r sizes", "p q", axis=1), node("Concat", "q p", "m", axis=1)],
    "slice": [node("Slice", "r two seven channels", "m")],
    "slice from the end": [node("Slice", "r minus_six many channels", "m")],
    "gather": [node("Gather", "r order", "m", axis=1)],
    "pad": [node("Pad", "r pads", "m")],
    "with the image": [node("Concat", "r x", "m", axis=1)],
}
FIGURES = [
    constant("sizes", [3, 5], np.int64),
    constant("two", [2], np.int64),
    constant("seven", [7], np.int64),
    constant("minus_six", [-6], np.int64),
    constant("many", [2**62], np.int64),
    constant("channels", [1], np.int64),
    constant("order", [5, 0, 7, 2, 2, 1], np.int64),
    constant("pads", [0, 2, 0, 0, 0, 1, 0, 0], np.int64),
]


@pytest.mark.parametrize(("moves", "width"), list(zip(MOVES, [8, 5, 6, 6, 11, 11], strict=True)))
def test_what_a_node_is_told_in_figures_follows_the_cut(moves, width):
    nodes = [node("Conv", "x w1 b1", "a", pads=[1] * 4), node("Relu", "a", "r"), *MOVES[moves]]
    nodes += [node("Conv", "m w2", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    constants = [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 10, width, 3, 3)]
    used = {name for each in MOVES[moves] for name in each.input}
    variant = build(nodes, constants + [each for each in FIGURES if each.name in used])
    coupling = find_coupling(open_graph(variant.payload))
    for seed in range(4):
        removed = some(coupling.groups, 0.5, seed)
        narrow, masked = (run(variant, each(removed)) for each in (coupling.remove, coupling.masked))
        assert furthest(narrow, masked) < 1e-5
        assert furthest(run(variant, coupling.model), masked) > 1e-3


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (node("Softmax", "c", "s", axis=1), "Softmax 's' needs all of them for each"),
        (node("ReduceMax", "c axes", "s"), "ReduceMax 's' is taken over all of them"),
        (node("LRN", "c", "s", size=3), "labkit has no rule for LRN 's'"),
    ],
)
def test_channels_that_something_needs_whole_are_kept_and_the_reason_is_told(last, says):
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "r"), node("Conv", "r w2", "c"), last]
    nodes += [node("ReduceMean", "s images", "m", keepdims=0), node("ReduceSum", "m ones", "t", keepdims=0)]
    nodes += [node("Expand", "t ten", "y")]
    sums = (
        constant("images", [2, 3], np.int64),
        constant("ones", [1], np.int64),
        constant("ten", [1, 10], np.int64),
    )
    constants = [weight("w1", 8, 3, 3, 3), weight("w2", 6, 8, 3, 3), constant("axes", [1], np.int64), *sums]
    nodes.insert(-1, node("Unsqueeze", "t ones", "column"))
    nodes[-1] = node("Expand", "column ten", "y")
    coupling = find_coupling(open_graph(build(nodes, constants).payload))
    assert coupling.whole["w2"] == says
    assert [group.name for group in coupling.groups] == ["w1"]


def test_a_network_of_which_nothing_can_go_says_why():
    alone = build(
        [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")],
        [weight("w", 10, 3, 3, 3)],
    )
    with pytest.raises(Exception, match="kept whole are w because they are what the model puts out as 'y'"):
        PruneChannels()(alone)
