"""Which constants of a graph are its weights, also where they are turned over first, and along which axis they sum."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit import PruneMagnitude
from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.onnx_graph.as_torch import as_torch
from labkit.runtimes import get_runtime
from tests.graphs import build, constant, data_for, node, normal, weight

PRODUCTS = [node("MatMul", "x a", "m"), node("Relu", "m", "r"), node("MatMul", "r b", "y")]


def module_of(variant):
    return as_torch(open_graph(variant.payload))


def turned_mlp():
    """Two products by weights that are stored as [outputs, inputs]."""
    turns = [node("Transpose", "w1", "a", perm=[1, 0]), node("Transpose", "w2", "b")]
    return build([*turns, *PRODUCTS], [weight("w1", 64, 32), weight("w2", 10, 64)], ("batch", 32))


def test_a_weight_behind_a_transpose_is_one_with_the_axis_that_it_is_stored_with():
    module = module_of(turned_mlp())
    assert {name: tuple(each.shape) for name, each in module.weights().items()} == {
        "w1": (64, 32),
        "w2": (10, 64),
    }
    assert module.input_axes() == {"w1": 1, "w2": 1}


@pytest.mark.parametrize("scope", ["global", "layer", "n:m"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_weights_that_are_turned_over_are_pruned_and_the_file_computes_with_their_zeros(scope, epochs):
    variant = turned_mlp()
    technique = PruneMagnitude(sparsity=0.5, scope=scope, fine_tune_epochs=epochs)
    pruned = technique(variant, data_for(variant) if epochs else None)
    graph = Graph(onnx.load_model_from_string(pruned.payload))
    w1, w2 = graph.constant("w1"), graph.constant("w2")
    assert np.sum(w1 == 0) + np.sum(w2 == 0) == (w1.size + w2.size) // 2
    if scope != "global":
        assert np.sum(w1 == 0) == w1.size // 2
    if scope == "n:m":  # along the inputs, which are the last axis here
        assert all((np.sum(each.reshape(-1, 4) == 0, 1) == 2).all() for each in (w1, w2))
    x = normal("x", 5, 32)
    with get_runtime("onnxruntime").load(pruned) as session:
        y = session.run({"x": x})["y"]
    np.testing.assert_allclose(y, np.maximum(x @ w1.T, 0) @ w2.T, rtol=1e-4, atol=1e-5)


def test_a_table_that_is_looked_up_too_is_pruned_where_it_multiplies():
    nodes = [
        node("Gather", "w1 rows", "start"),
        node("Add", "x start", "s"),
        node("Transpose", "w1", "a"),
        node("MatMul", "s a", "y"),
    ]
    stored = [weight("w1", 10, 32), constant("rows", [3], np.int64)]
    variant = build(nodes, stored, ("batch", 32))
    pruned = PruneMagnitude(sparsity=0.25)(variant)
    assert np.sum(Graph(onnx.load_model_from_string(pruned.payload)).constant("w1") == 0) == 80


MOVES = {
    "one axis more": ([node("Unsqueeze", "w last", "k")], (8, 3), {"last": [2]}, 1),
    "one axis less": ([node("Squeeze", "w last", "k")], (8, 3, 1, 1), {"last": [3]}, 1),
    "its inputs first": ([node("Transpose", "w", "k", perm=[1, 0, 2])], (3, 8, 1), {}, 0),
    "turned and reshaped": (
        [node("Transpose", "w", "t", perm=[1, 0]), node("Reshape", "t sizes", "k")],
        (3, 8),
        {"sizes": [8, 3, 1]},
        0,
    ),
}


@pytest.mark.parametrize("case", MOVES)
def test_the_axis_of_the_inputs_is_followed_through_what_moves_it(case):
    moves, shape, others, axis = MOVES[case]
    nodes = [*moves, node("Conv", "x k", "c"), node("ReduceMean", "c axes", "y", keepdims=0)]
    stored = [weight("w", *shape), constant("axes", [2], np.int64)]
    stored += [constant(name, values, np.int64) for name, values in others.items()]
    module = module_of(build(nodes, stored, ("batch", 3, 5), ("batch", 8)))
    assert module.input_axes() == {"w": axis}


@pytest.mark.parametrize("shape", [(2, 16, 10), (320,), (10, 32)])
def test_a_weight_whose_input_axis_is_lost_on_the_way_is_named(shape):
    nodes = [
        node("Reshape", "w flat", "f"),
        node("Reshape", "f sizes", "a"),
        node("MatMul", "x a", "y"),
    ]
    stored = [weight("w", *shape), constant("flat", [-1], np.int64), constant("sizes", [32, 10], np.int64)]
    variant = build(nodes, stored, ("batch", 32))
    assert list(module_of(variant).weights()) == ["w"]
    with pytest.raises(TechniqueError, match="'w' is stored in another shape .*optimize_graph"):
        PruneMagnitude()(variant)


def test_numbers_that_a_reshape_has_copied_do_not_tell_their_axes():
    """Behind the Transpose the numbers stand in another order, although the shape is the stored one again."""
    nodes = [
        node("Transpose", "w", "t"),
        node("Reshape", "t sizes", "a"),
        node("MatMul", "x a", "y"),
    ]
    variant = build(nodes, [weight("w", 32, 10), constant("sizes", [32, 10], np.int64)], ("batch", 32))
    with pytest.raises(TechniqueError, match="'w' is stored in another shape"):
        module_of(variant).input_axes()


def test_what_the_error_names_stores_the_weight_as_it_is_used():
    from labkit.onnx_graph.optimize import optimize_graph

    nodes = [node("Reshape", "w sizes", "a"), node("MatMul", "x a", "y")]
    stored = [weight("w", 2, 16, 10), constant("sizes", [32, 10], np.int64)]
    variant = build(nodes, stored, ("batch", 32))
    optimized = dataclasses.replace(variant, model=optimize_graph(variant.payload, "basic").payload)
    pruned = PruneMagnitude()(optimized)
    zeros = [
        np.sum(numpy_helper.to_array(tensor) == 0)
        for tensor in onnx.load_model_from_string(pruned.payload).graph.initializer
    ]
    assert zeros == [160]
