"""Channels leave blocks in which they are hard to follow: mixed, repeated, looked up, measured or shuffled.

What is left equals the original with these channels at zero; so it does in a file and in a module, unless the code
of the module speaks of a width. Then the groups that remain still go together, whatever share each of them loses.
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
from labkit.convert.live import as_variant
from labkit.errors import TechniqueError
from labkit.onnx_graph import open_graph
from labkit.prune import PruneChannels
from labkit.prune.coupling import find_coupling
from labkit.prune.coupling.modules import fitting, masked_module, narrow_module, trace
from labkit.prune.coupling.sizes import find_sizes
from labkit.prune.structure import read_structure
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.blocks import BLOCKS, Image, MaskedAttention, MaskedConv, ScaledConv
from tests.graphs import build, constant, node, weight

IMAGES = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)

# The units of each group that can go: from the graph, and from the module where its code leaves fewer.
GROUPS = {
    "einsum": ([24, 4], [24, 4]),
    "grouped_queries": ([24, 4], [24, 4]),
    "gpt2": ([24, 4], [24, 4]),
    "relative": ([24, 4], [24, 4]),
    "sliced_weight": ([16, 7, 5], [16, 12]),
    "indexed": ([4, 12], [4, 12]),
    "selective_kernels": ([16, 16, 8], [16, 16, 8]),
    "dual_path": ([16, 10, 6], [16, 10, 6]),
    "mixed_kernels": ([6, 10], [6, 10]),
    "stairs": ([4] * 5, [4] * 5),
    "anchors": ([16, 12], [16, 12]),
    "scaled": ([16, 8, 12], [16, 8, 12]),
    "scaled_viewed": ([16, 8, 12], [16, 8, 12]),
    "pyramid": ([16, 12, 8], [16, 12, 8]),
    "pixel_shuffle": ([16, 8], [16, 8]),
    "transposed_depthwise": ([16], [16]),
    "transposed_grouped": ([8, 6], [8, 6]),
    "cosine": ([8, 16], [8, 16]),
}
everywhere = pytest.mark.parametrize("name", GROUPS)


def made(name, seed=0):
    torch.manual_seed(seed)
    return as_variant(BLOCKS[name]().eval(), IMAGES[:2], name)


@functools.cache
def traced(name):
    variant = made(name)
    return variant, trace(variant)


def some(groups, seed=0):
    """A share of each group that depends on its length: where all lose the same, widths agree that need not."""
    random, lengths = np.random.default_rng(seed), sorted({len(group) for group in groups})
    shares = [0.25, 0.5, 0.4]
    counts = [max(1, int(shares[lengths.index(len(group)) % 3] * len(group))) for group in groups]
    return [g.units[random.permutation(len(g))[:count]] for g, count in zip(groups, counts, strict=True)]


def run(variant, model):
    file = dataclasses.replace(variant, format="onnx", model=model.SerializeToString())
    with get_runtime("onnxruntime").load(file) as session:
        feeds = {variant.inputs[0].name: probe(variant, 3)[variant.inputs[0].name]}
        return session.run(feeds)[variant.outputs[0].name]


def furthest(first, second):
    return float(np.abs(first - second).max() / max(np.abs(second).max(), 1e-9))


@everywhere
def test_a_file_of_the_block_without_some_channels_equals_itself_with_them_at_zero(name):
    variant, model = traced(name)
    optimized = open_graph(onnxscript.optimizer.optimize(model).SerializeToString())
    coupling = find_coupling(optimized)
    assert sorted(map(len, coupling.groups)) == sorted(GROUPS[name][0]), coupling.whole
    removed = some(coupling.groups)
    narrow, masked = coupling.remove(removed), coupling.masked(removed)
    onnx.checker.check_model(narrow, full_check=True)
    expected = run(variant, masked)
    assert furthest(run(variant, narrow), expected) < 1e-5
    assert furthest(run(variant, optimized), expected) > 1e-3, "nothing was at zero"


@everywhere
def test_a_module_with_the_block_without_some_channels_equals_itself_with_them_at_zero(name):
    variant, model = traced(name)
    coupling = fitting(variant, find_coupling(model))
    assert sorted(map(len, coupling.groups)) == sorted(GROUPS[name][1]), coupling.whole
    removed = some(coupling.groups)
    narrow, masked = (each(variant.model, coupling, removed) for each in (narrow_module, masked_module))
    with torch.no_grad():
        found, expected = (module(torch.from_numpy(IMAGES)).numpy() for module in (narrow, masked))
    assert furthest(found, expected) < 1e-5
    assert furthest(variant.model(torch.from_numpy(IMAGES)).detach().numpy(), expected) > 1e-3


def test_widths_that_the_code_needs_to_agree_are_named_where_they_no_longer_do():
    attention = made("torch_attention")
    pruned = PruneChannels(0.5)(attention)  # 12 channels in 2 heads of 6
    assert (pruned.model.block.attention.embed_dim, pruned.model.block.attention.num_heads) == (12, 2)
    with pytest.raises(
        TechniqueError, match=r"cannot do without the chosen .*pruning_ratio=0.5.*ExportOnnx\(\)"
    ):
        PruneChannels(0.4)(attention)  # 14 channels in 2 heads of 6


def test_a_weight_that_is_computed_from_others_is_named_where_it_keeps_channels():
    with pytest.raises(
        TechniqueError, match="Conv .* because its weight is computed while the model runs, and ReduceL2"
    ):
        PruneChannels(0.4)(made("weight_norm"))


def test_a_masked_weight_is_named_beside_what_can_go():
    torch.manual_seed(0)
    module = Image(torch.nn.Sequential(MaskedConv(16, 12, 3), torch.nn.ReLU(), torch.nn.Conv2d(12, 8, 1)), 8)
    coupling = read_structure(as_variant(module.eval(), IMAGES[:2])).coupling
    assert [group.name for group in coupling.groups] == ["first.weight", "block.2.weight"]
    assert "its weight is computed while the model runs" in coupling.whole.values()


@pytest.mark.parametrize(
    ("moved", "channels"),
    [
        (node("DepthToSpace", "r", "m", blocksize=2, mode="DCR"), 4),
        (node("DepthToSpace", "r", "m", blocksize=2, mode="CRD"), 4),
        (node("SpaceToDepth", "r", "m", blocksize=2), 64),
    ],
)
def test_channels_are_found_again_where_they_become_places_and_places_channels(moved, channels):
    nodes = [node("Conv", "x w1 b1", "a"), node("Relu", "a", "r"), moved, node("Conv", "m w2", "c")]
    nodes += [node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    constants = [weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 10, channels, 3, 3)]
    variant = build(nodes, constants, outputs=("batch", 10), shape=("batch", 3, 18, 18))
    coupling = find_coupling(open_graph(variant.payload))
    assert [len(group) for group in coupling.groups] == [min(channels, 16)]
    removed = some(coupling.groups)
    narrow, masked, whole = (
        run(variant, each) for each in (coupling.remove(removed), coupling.masked(removed), coupling.model)
    )
    assert furthest(narrow, masked) < 1e-5 < 1e-3 < furthest(whole, masked)


def test_channels_stay_what_they_are_where_single_places_of_an_image_are_looked_up():
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Relu", "a", "r"),
        node("Transpose", "r", "t", perm=[2, 3, 0, 1]),
    ]
    nodes += [node("GatherND", "t places", "p"), node("ReduceMean", "p first", "m", keepdims=0)]
    constants = [
        weight("w1", 8, 3, 3, 3),
        weight("b1", 8),
        weight("w2", 8, 10),
        constant("first", [0], np.int64),
    ]
    constants.append(constant("places", [[0, 0], [3, 5], [13, 2]], np.int64))
    variant = build([*nodes, node("Gemm", "m w2", "y")], constants)
    coupling = find_coupling(open_graph(variant.payload))
    assert [len(group) for group in coupling.groups] == [8]
    removed = some(coupling.groups)
    assert furthest(run(variant, coupling.remove(removed)), run(variant, coupling.masked(removed))) < 1e-5


def test_a_sum_over_a_weight_keeps_what_it_reads_for_zero_inputs_do_not_make_it_less():
    nodes = [node("Conv", "x w1", "a"), node("ReduceSum", "w2 axes", "s"), node("Div", "w2 s", "w")]
    nodes += [node("Conv", "a w", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    constants = [weight("w1", 8, 3, 3, 3), weight("w2", 10, 8, 3, 3), constant("axes", [1, 2, 3], np.int64)]
    coupling = find_coupling(open_graph(build(nodes, constants).payload))
    assert not coupling.groups
    assert coupling.whole["w1"] == "ReduceSum 's' is taken over all of them"


class AtLeast(torch.nn.Module):
    """Code that can do with fewer channels of either layer, but not of both."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 12, 3)
        self.last = torch.nn.Linear(12, 10)

    def forward(self, x):
        x = self.first(x).relu()
        y = self.second(x).relu()
        if x.shape[1] + y.shape[1] < 13:
            raise ValueError("too few channels")
        return self.last(y.mean((2, 3)))


def test_of_two_groups_that_code_cannot_narrow_together_one_is_narrowed_and_the_other_named():
    torch.manual_seed(0)
    structure = read_structure(as_variant(AtLeast().eval(), IMAGES[:2]))
    assert [group.name for group in structure.coupling.groups] == ["first.weight"]
    assert structure.coupling.whole["second.weight"].endswith(
        "cannot do with fewer: ValueError: too few channels"
    )


def halved(block, channels):
    """The block once every group has lost half of its units, and how many units each group had."""
    torch.manual_seed(0)
    module = Image(torch.nn.Sequential(torch.nn.Conv2d(16, 8, 1), torch.nn.ReLU(), block), channels)
    structure = read_structure(as_variant(module.eval(), IMAGES[:2]))
    groups = structure.coupling.groups
    return structure.narrow([group.units[::2] for group in groups]).block[2], sorted(map(len, groups))


def test_a_number_that_equals_a_size_by_chance_stays_also_where_it_counts_in_training_alone():
    block, groups = halved(ScaledConv(), 12)
    assert (groups, block.scale, block.warm_up) == ([8, 12, 16], 8, 12)


def test_numbers_follow_the_cut_of_those_groups_alone_that_need_it():
    block, groups = halved(ScaledConv(view=True), 12)
    assert (groups, block.scale, block.width) == ([8, 12, 16], 8, 6)


def test_a_group_that_cannot_do_with_numbers_corrected_nor_without_stays_whole_and_the_others_go():
    block, groups = halved(ScaledConv(scale=12, view=True), 12)
    assert (groups, block.scale, block.width) == ([8, 16], 12, 12)


@pytest.mark.parametrize("equation", ["nck,cd->nd", "nc,cd,de->ne", "nc->nc", "nc,cd->ne", "nc,cd->n...d"])
def test_an_einsum_whose_equation_does_not_fit_its_inputs_keeps_the_channels_whole(equation, monkeypatch):
    nodes = [node("Conv", "x w1", "a"), node("GlobalAveragePool", "a", "g"), node("Flatten", "g", "f")]
    nodes.append(node("Einsum", "f w2", "y", equation="nc,cd->nd"))
    model = open_graph(build(nodes, [weight("w1", 8, 3, 3, 3), weight("w2", 8, 10)]).payload)
    sizes = find_sizes(model)
    # an engine would refuse the graph before the rule sees it
    monkeypatch.setattr("labkit.prune.coupling.coupling.find_sizes", lambda _: sizes)
    model.graph.node[-1].attribute[0].s = equation.encode()
    coupling = find_coupling(model)
    assert not coupling.groups
    assert coupling.whole["w1"].startswith("Einsum 'y' ")


def test_attention_under_a_mask_is_pruned_and_exported_with_tokens_that_count():
    torch.manual_seed(0)
    words = {"ids": np.arange(16).reshape(2, 8), "attention_mask": np.ones((2, 8), np.int64)}
    pruned = PruneChannels(0.4)(as_variant(MaskedAttention().eval(), words))
    exported = ExportOnnx()(pruned)
    words["attention_mask"][:, 5:] = 0
    with get_runtime("onnxruntime").load(exported) as session, torch.no_grad():
        expected = pruned.model(*map(torch.from_numpy, words.values())).numpy()
        assert furthest(session.run(words)["output"], expected) < 1e-5
