"""ONNX Runtime's own rewritings, kept and counted; ours for batch norms beside them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from labkit.convert import parity
from labkit.errors import ConfigError, TechniqueError
from labkit.onnx_graph import Graph, fold_batch_norm
from labkit.onnx_graph.optimize import BATCH_NORM_FOLDING, LEVELS, AsWritten, count_operators, optimize_graph
from labkit.runtimes import RunOptions
from labkit.variant import TensorSpec, Variant


def normalized(shift: float = 0.0) -> Variant:
    """Conv with a bias that is computed from constants, BatchNormalization, Relu, Identity."""
    random = np.random.default_rng(0)
    parameters = {
        "weight": random.standard_normal((8, 3, 3, 3)),
        "half": random.standard_normal(8),
        "gamma": random.uniform(0.5, 2, 8),
        "beta": random.standard_normal(8) + shift,
        "mean": random.standard_normal(8),
        "variance": random.uniform(0.5, 2, 8),
    }
    nodes = [
        helper.make_node("Add", ["half", "half"], ["bias"], "double"),
        helper.make_node("Conv", ["x", "weight", "bias"], ["raw"], "conv"),
        helper.make_node("BatchNormalization", ["raw", "gamma", "beta", "mean", "variance"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Identity", ["r"], ["y"], "same"),
    ]
    graph = helper.make_graph(
        nodes,
        "normalized",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["batch", 8, 6, 6])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Variant(
        "normalized",
        "onnx",
        model.SerializeToString(),
        (TensorSpec("x", "float32", ("batch", 3, 8, 8)),),
        (TensorSpec("y", "float32", ("batch", 8, 6, 6)),),
        task="regression",
    )


def rewritten(variant: Variant, payload: bytes) -> Variant:
    return Variant("rewritten", "onnx", payload, variant.inputs, variant.outputs, variant.task)


def convolution(payload: bytes) -> list[np.ndarray]:
    """Weight and bias of the one convolution."""
    graph = Graph(onnx.load_model_from_string(payload))
    node = next(each for each in graph.nodes if each.op_type == "Conv")
    return [np.asarray(graph.constant(name)) for name in node.input[1:]]


def test_each_level_leaves_the_same_function_and_up_to_fusion_fewer_operators() -> None:
    model = normalized()
    counts = []
    for level in LEVELS:
        made = optimize_graph(model.payload, level)
        assert made.operators == count_operators(made.payload)
        assert made.size_bytes == len(made.payload)
        counts.append(sum(made.operators.values()))
        parity(model, rewritten(model, made.payload), runtime=AsWritten()).check(1e-5)
    assert counts[:3] == [5, 2, 1]  # "all" may put in operators that lay the numbers out


def test_what_a_level_does_is_seen_in_the_operators() -> None:
    payload = normalized().payload
    assert optimize_graph(payload, "none").operators == Counter(
        ["Add", "Conv", "BatchNormalization", "Relu", "Identity"]
    )
    assert optimize_graph(payload, "basic").operators == {"Conv": 1, "Relu": 1}
    assert optimize_graph(payload, "extended").operators == {"FusedConv": 1}


def test_our_folding_gives_the_weights_of_onnx_runtime_s() -> None:
    payload = normalized().payload
    constants = optimize_graph(payload, "basic", without=(BATCH_NORM_FOLDING,))
    assert constants.operators == {"Conv": 1, "BatchNormalization": 1, "Relu": 1}
    model = onnx.load_model_from_string(constants.payload)
    assert fold_batch_norm(model) == 1
    ours, theirs = (
        convolution(model.SerializeToString()),
        convolution(optimize_graph(payload, "basic").payload),
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_weights_of_another_file_would_be_told_from_them() -> None:
    ours, other = (
        convolution(optimize_graph(normalized(shift).payload, "basic").payload) for shift in (0.0, 0.1)
    )
    assert not np.allclose(ours[1], other[1], rtol=1e-5, atol=1e-6)


def test_as_written_means_that_nothing_is_rewritten() -> None:
    settings = AsWritten().settings(RunOptions())
    assert settings["graph_optimization_level"].name == "ORT_DISABLE_ALL"
    assert settings["intra_op_num_threads"] == 1


def test_an_unknown_level_and_a_broken_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="'extended'"):
        optimize_graph(normalized().payload, "extendet")
    with pytest.raises(TechniqueError, match="ONNX Runtime cannot rewrite this file"):
        optimize_graph(b"no model")
