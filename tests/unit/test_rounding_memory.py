"""Learned rounding on large layers: in bounded memory, or refused in plain words before anything is run."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.progress import silent
from labkit.quantize import QuantizeWeights
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.rounding import learn, moments
from labkit.quantize.rounding.moments import Rows
from tests.graphs import build, data_for, node, normal, small_cnn, weight


def wide_product():
    return build([node("MatMul", "x w", "y")], [weight("w", 16384, 10)], ("batch", 16384))


def wide_groups():
    """A convolution of 4 groups of 2,560 channels: each alone would do, not all four."""
    shapes = ("batch", 10240, 1, 1), ("batch", 4, 1, 1)
    return build([node("Conv", "x w", "y", group=4)], [weight("w", 4, 2560, 1, 1)], *shapes)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (wide_product, "'w' of 'user' has 16384 inputs: .* 268,435,456 numbers"),
        (wide_groups, "'w' of 'user' has 2560 inputs in each of 4 groups: .* 26,214,400 numbers"),
    ],
)
@pytest.mark.parametrize("rounding", ["gptq", "adaround", "descent"])
def test_a_layer_of_too_many_inputs_is_refused_before_anything_is_run(make, told, rounding, monkeypatch):
    monkeypatch.setattr(learn, "activations", None)
    with pytest.raises(TechniqueError, match=told + ".*use rounding='nearest'"):
        QuantizeWeights(rounding=rounding)(make(), data_for(small_cnn(), 4))


def test_the_nearest_rounding_takes_a_layer_of_any_size():
    assert QuantizeWeights(bits=8)(wide_product()).size_bytes < 0.3 * wide_product().size_bytes


def depthwise():
    variant = build(
        [node("Conv", "x w", "c", group=3), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")],
        [weight("w", 3, 1, 3, 3)],
        outputs=("batch", 3),
    )
    return variant, normal("x", 4, 3, 16, 16)


def product_of_tokens():
    variant = build([node("MatMul", "x w", "y")], [weight("w", 27, 10)], ("batch", 49, 27), ("batch", 49, 10))
    return variant, normal("x", 16, 49, 27)


@pytest.mark.parametrize("make", [depthwise, product_of_tokens])
def test_of_many_patches_every_nth_is_taken_so_that_they_fit_into_memory(make, monkeypatch):
    variant, x = make()
    model = open_graph(variant.payload)
    rows = Rows(Graph(model), make_plan(model).layers[0])
    every = rows.patches(x)
    assert every.shape[1] == 784  # 4 images of 14 × 14 places, 16 texts of 49 words
    monkeypatch.setattr(moments, "_MOST_PATCH_BYTES", int(0.4 * every.nbytes))
    fewer = rows.patches(x)
    assert fewer.nbytes <= 0.4 * every.nbytes
    np.testing.assert_array_equal(fewer, every[:, ::3])


@pytest.mark.parametrize("most", [800, 150_000, 10**9])
def test_layers_that_do_not_fit_into_memory_together_are_learned_in_turns(most, monkeypatch):
    variant = small_cnn()
    samples = data_for(variant, 32).split("calibration")
    model = open_graph(variant.payload)
    graph, layers = Graph(model), make_plan(model).layers
    grids = {each.weight: weight_grid(graph.constant(each.weight), each.axis, 4) for each in layers}
    counted = []

    def counting(variant, model, names, *others):
        counted.append(len(names))
        return activations(variant, model, names, *others)

    activations = learn.activations
    monkeypatch.setattr(learn, "activations", counting)
    expected = learn.learn_alone("gptq", variant, model, layers, grids, samples, silent)
    assert counted == [3]
    monkeypatch.setattr(learn, "_refuse_too_large", lambda *_: None)
    monkeypatch.setattr(learn, "_MOST_PRODUCTS", most)
    found = learn.learn_alone("gptq", variant, model, layers, grids, samples, silent)
    assert counted[1:] == {800: [1, 1, 1], 150_000: [2, 1], 10**9: [3]}[most]
    for name, each in expected.items():
        np.testing.assert_array_equal(found[name].weight.integers, each.weight.integers)
