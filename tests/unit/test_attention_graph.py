"""Rewritings of attention and GELU: each does what it says, the function stays, and what does not fit is left alone."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest

from labkit.onnx_graph import open_graph
from labkit.onnx_graph.attention import (
    flatten_layers,
    regroup_gelu,
    scale_weights,
    simplify,
    split_layers,
    transpose_once,
)
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import build, constant, node, weight

TOKENS, HEADS, DEPTH = 6, 2, 4
WIDTH = HEADS * DEPTH


def block(scale=0.5, perm=(0, 2, 1), axis=2):
    """Attention and GELU as PyTorch exports them: [N, 6, 8] → [N, 6, 8]."""
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "qkv"),
        node("Split", "qkv", "q k v", axis=axis, num_outputs=3),
        *(node("Reshape", f"{each} heads", f"{each}1") for each in "qkv"),
        *(node("Transpose", f"{each}1", f"{each}2", perm=[0, 2, 1, 3]) for each in "qkv"),
        node("Reshape", "k2 joined", "k3"),
        node("Transpose", "k3", "k4", perm=list(perm)),
        node("Reshape", "k4 parted", "k5"),
        node("Mul", "q2 scale", "q3"),
        node("Mul", "scale k5", "k6"),
        node("MatMul", "q3 k6", "s"),
        node("Softmax", "s", "p"),
        node("MatMul", "p v2", "o"),
        node("Transpose", "o", "o1", perm=[0, 2, 1, 3]),
        node("Reshape", "o1 whole", "o2"),
        node("MatMul", "o2 w2", "h1"),
        node("Add", "b2 h1", "h"),
        node("Div", "h root", "e1"),
        node("Erf", "e1", "e2"),
        node("Add", "e2 one", "e3"),
        node("Mul", "half e3", "e4"),
        node("Mul", "h e4", "y"),
    ]
    constants = [weight("w", WIDTH, 3 * WIDTH), weight("b", 3 * WIDTH), weight("w2", WIDTH, WIDTH)]
    constants += [weight("b2", WIDTH), constant("scale", [scale]), constant("root", 2**0.5)]
    constants += [constant("one", 1.0), constant("half", 0.5)]
    shapes = {"heads": (-1, TOKENS, HEADS, DEPTH), "joined": (-1, TOKENS, DEPTH)}
    shapes |= {"parted": (-1, HEADS, DEPTH, TOKENS), "whole": (-1, TOKENS, WIDTH)}
    constants += [constant(name, shape, np.int64) for name, shape in shapes.items()]
    return build(nodes, constants, ("batch", TOKENS, WIDTH), ("batch", TOKENS, WIDTH))


def rewritten(variant, *rewritings):
    """The variant after them, each of which found as much as is said, and computes the same."""
    model = open_graph(variant.payload)
    for rewriting, count in rewritings:
        assert rewriting(model) == count, rewriting.__name__
    onnx.checker.check_model(model, full_check=True)
    after = dataclasses.replace(variant, model=model.SerializeToString())
    feeds = probe(variant, 5)
    with get_runtime("onnxruntime").load(variant) as a, get_runtime("onnxruntime").load(after) as b:
        np.testing.assert_allclose(b.run(feeds)["y"], a.run(feeds)["y"], rtol=1e-4, atol=1e-5)
    return Counter(each.op_type for each in model.graph.node), model


@pytest.mark.parametrize("axis", [2, -1])
def test_queries_keys_and_values_get_layers_of_their_own(axis):
    kinds, model = rewritten(block(axis=axis), (split_layers, 1))
    assert not kinds["Split"] and kinds["MatMul"] == 6
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert "w" not in stored and list(stored.values()).count((WIDTH, WIDTH)) == 4


def test_a_cut_along_the_tokens_is_left_alone():
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("Split", "a", "p q", axis=1, num_outputs=2),
        node("Add", "p q", "y"),
    ]
    constants = [weight("w", WIDTH, WIDTH), weight("b", WIDTH)]
    variant = build(nodes, constants, ("batch", TOKENS, WIDTH), ("batch", TOKENS // 2, WIDTH))
    rewritten(variant, (split_layers, 0))


def test_keys_are_transposed_once():
    kinds, _ = rewritten(block(), (transpose_once, 1))
    assert kinds["Transpose"] == 4 and kinds["Reshape"] == 4


def test_constants_behind_a_layer_join_its_weights():
    kinds, _ = rewritten(block(), (split_layers, 1), (scale_weights, 2))
    assert kinds["Mul"] == 2  # of the GELU


def test_a_constant_is_left_where_something_else_reads_the_layer():
    """Before queries, keys and values are apart, a constant behind one of them would change them all."""
    rewritten(block(), (scale_weights, 0))
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("Mul", "a scale", "t"),
        node("Add", "t a", "y"),
    ]
    constants = [weight("w", WIDTH, WIDTH), weight("b", WIDTH), constant("scale", 3.0)]
    variant = build(nodes, constants, ("batch", TOKENS, WIDTH), ("batch", TOKENS, WIDTH))
    rewritten(variant, (scale_weights, 0))


def test_a_regrouped_gelu_is_one_operator_in_onnx_runtime(tmp_path):
    import onnxruntime as ort

    _, model = rewritten(block(), (regroup_gelu, 1))
    found = []
    for index, payload in enumerate((block().payload, model.SerializeToString())):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{index}.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
        kinds = Counter(each.op_type for each in onnx.load(tmp_path / f"{index}.onnx").graph.node)
        found.append((kinds["Erf"], kinds["Gelu"] + kinds["BiasGelu"]))
    assert found == [(1, 0), (0, 1)]


def test_a_layer_of_tokens_becomes_a_gemm():
    kinds, _ = rewritten(block(), (flatten_layers, 2))
    assert kinds["Gemm"] == 2 and kinds["MatMul"] == 2 and kinds["Add"] == 1


def test_tokens_of_unknown_number_are_left_alone():
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    constants = [weight("w", WIDTH, WIDTH), weight("b", WIDTH)]
    variant = build(nodes, constants, ("batch", "time", WIDTH), ("batch", "time", WIDTH))
    rewritten(variant, (flatten_layers, 0))


@pytest.mark.parametrize(("with_gemms", "products"), [(True, 2), (False, 6)])
def test_all_together_leave_the_products_of_attention_and_no_detour(with_gemms, products):
    def all_of_them(model):
        simplify(model, with_gemms)

    kinds, _ = rewritten(block(), (all_of_them, None))
    assert kinds["MatMul"] == products and not kinds["Split"]
    assert kinds["Transpose"] == 4 and kinds["Mul"] == 2


@pytest.mark.parametrize("reader", ["Relu", "output"])
def test_a_layer_that_is_read_whole_too_is_not_cut(reader):
    whole = "y" if reader == "output" else "a"
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", whole),
        node("Split", whole, "p q", axis=2, num_outputs=2),
        *([] if reader == "output" else [node("Relu", "a", "r"), node("Concat", "p r q", "y", axis=2)]),
    ]
    constants = [weight("w", WIDTH, WIDTH), weight("b", WIDTH)]
    width = WIDTH if reader == "output" else 2 * WIDTH
    variant = build(nodes, constants, ("batch", TOKENS, WIDTH), ("batch", TOKENS, width))
    rewritten(variant, (split_layers, 0))


@pytest.mark.parametrize("inputs", ["x2 e4", "e4 x2"])
def test_the_gelu_of_what_is_itself_a_product_is_regrouped(inputs):
    nodes = [
        node("Mul", "x by", "x2"),
        node("Div", "x2 root", "e1"),
        node("Erf", "e1", "e2"),
        node("Add", "e2 one", "e3"),
        node("Mul", "half e3", "e4"),
        node("Mul", inputs, "y"),
    ]
    constants = [constant("root", 2**0.5), constant("one", 1.0), constant("half", 0.5), constant("by", 3.0)]
    rewritten(build(nodes, constants, ("batch", WIDTH), ("batch", WIDTH)), (regroup_gelu, 1))


def test_layers_in_half_precision_are_left_alone():
    nodes = [
        node("Cast", "x", "x16", to=onnx.TensorProto.FLOAT16),
        node("MatMul", "x16 w", "m"),
        node("Add", "m b", "a"),
        node("Mul", "a scale", "scaled"),
        node("Cast", "scaled", "y", to=onnx.TensorProto.FLOAT),
    ]
    constants = [constant("w", np.eye(WIDTH), np.float16), constant("b", np.ones(WIDTH), np.float16)]
    constants += [constant("scale", 0.5, np.float16)]
    variant = build(nodes, constants, ("batch", TOKENS, WIDTH), ("batch", TOKENS, WIDTH))
    rewritten(variant, (scale_weights, 0))
