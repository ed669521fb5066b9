"""Which constants of a graph training may move."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from labkit.onnx_graph import Graph, open_graph
from labkit.onnx_graph.as_torch import as_torch
from labkit.onnx_graph.as_torch.learned import learned_constants
from tests.graphs import build, constant, node, normal, weight


def trained(nodes, constants, shape, outputs, opset=18):
    """The constants that have a gradient in the module."""
    module = as_torch(open_graph(build(nodes, constants, shape, outputs, opset).payload))
    return {name for name in module.constants() if module.constant(name).requires_grad}


def test_weights_biases_and_normalisations_are_learned_and_preprocessing_and_bounds_are_not():
    nodes = [
        node("Sub", "x mean", "centred"),
        node("Div", "centred std", "unit"),
        node("Mul", "unit twice", "factor"),
        node("Add", "factor half", "image"),
        node("Pad", "image pads filling", "padded"),
        node("Conv", "padded w b", "c"),
        node("BatchNormalization", "c gamma beta m v", "n"),
        node("Min", "n cap", "capped"),
        node("Flatten", "capped", "f"),
        node("Gemm", "f w2 b2", "g"),
        node("Mul", "g deviation", "wide"),
        node("Add", "wide middle", "y"),
    ]
    constants = [weight(name, 3, 1, 1) for name in ("mean", "std", "twice", "half")]
    constants += [constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64), constant("filling", 0.5)]
    constants += [weight("w", 8, 3, 3, 3), *(weight(name, 8) for name in ("b", "gamma", "beta", "m"))]
    constants += [constant("v", np.ones(8)), weight("cap", 8, 1, 1), weight("w2", 8 * 16, 10)]
    constants += [weight(name, 10) for name in ("b2", "deviation", "middle")]
    found = trained(nodes, constants, ("batch", 3, 4, 4), ("batch", 10))
    assert found == {"w", "b", "gamma", "beta", "w2", "b2"}


def test_the_embedding_of_positions_is_learned_and_the_mask_of_the_attention_is_not():
    nodes = [
        node("Gather", "table x", "tokens"),
        node("Add", "tokens positions", "e"),
        node("MatMul", "e wq", "q0"),
        node("Add", "bq q0", "q"),
        node("MatMul", "e wk", "k"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Div", "s root", "scaled"),
        node("Add", "scaled mask", "masked"),
        node("Softmax", "masked", "p"),
        node("MatMul", "p e", "o"),
        node("LayerNormalization", "o scale shift", "l"),
        node("Transpose", "w_turned", "w", perm=[1, 0]),
        node("MatMul", "l w", "y"),
    ]
    mask = np.triu(np.full((4, 4), -1e9), 1)
    constants = [weight("table", 20, 16), weight("positions", 1, 4, 16), weight("w_turned", 10, 16)]
    constants += [weight("wq", 16, 16), weight("wk", 16, 16), weight("bq", 16), constant("root", 4.0)]
    constants += [constant("mask", mask[None]), weight("scale", 16), weight("shift", 16)]
    model = build_tokens(nodes, constants)
    found = learned_constants(Graph(model))
    assert found == {"table", "positions", "wq", "bq", "wk", "scale", "shift", "w_turned"}


def build_tokens(nodes, constants):
    """As `build`, of whole numbers [batch, 4]."""
    model = open_graph(build([node("Identity", "x", "y")], [], ("batch", 4), ("batch", 4)).payload)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    return model


@pytest.mark.parametrize("kind, attributes", [("Instance", {}), ("Group", {"num_groups": 2})])
def test_the_scale_and_shift_of_each_kind_of_normalisation_are_learned(kind, attributes):
    nodes = [
        node("Conv", "x w", "c"),
        node(f"{kind}Normalization", "c scale shift", "n", **attributes),
        node("Add", "n more", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Flatten", "p", "y"),
    ]
    constants = [weight("w", 10, 3, 3, 3), weight("scale", 10), weight("shift", 10), weight("more", 10, 1, 1)]
    found = trained(nodes, constants, ("batch", 3, 8, 8), ("batch", 10), opset=21)
    assert found == {"w", "scale", "shift", "more"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_constant_that_is_a_setting_somewhere_stays_as_it_is(tied):
    nodes = [node("Gemm", "x w b", "g"), node("Max", f"g {'b' if tied else 'low'}", "y")]
    constants = [weight("w", 4, 10), weight("b", 10), *([] if tied else [weight("low", 10)])]
    found = trained(nodes, constants, ("batch", 4), ("batch", 10))
    assert found == ({"w"} if tied else {"w", "b"})


def test_the_bias_of_a_single_output_is_learned_and_whole_numbers_never_are():
    nodes = [
        node("Gemm", "x w b", "g"),
        node("Gather", "numbers picked", "shape"),
        node("Reshape", "g shape", "y"),
    ]
    constants = [constant("w", normal("w", 4, 1)), constant("b", [0.5])]
    constants += [constant("numbers", [7, -1, 1], np.int64), constant("picked", [1, 2], np.int64)]
    assert trained(nodes, constants, ("batch", 4), ("batch", 1)) == {"w", "b"}


def test_the_numbers_of_a_hard_swish_behind_a_layer_are_not_learned():
    nodes = [
        node("Gemm", "x w", "g"),
        node("Add", "g b", "h"),
        node("Add", "h three", "shifted"),
        node("Clip", "shifted low high", "gate"),
        node("Mul", "h gate", "product"),
        node("Div", "product high", "y"),
    ]
    constants = [weight("w", 4, 10), weight("b", 10), constant("three", [3.0])]
    constants += [constant("low", 0.0), constant("high", 6.0)]
    assert trained(nodes, constants, ("batch", 4), ("batch", 10)) == {"w", "b"}


def test_what_a_layer_put_out_still_takes_a_bias_where_a_constant_is_joined_before_it():
    nodes = [
        node("MatMul", "x w", "m"),
        node("Concat", "zeros m", "joined", axis=0),
        node("Add", "joined b", "y"),
    ]
    constants = [weight("w", 4, 10), constant("zeros", np.zeros((1, 10))), weight("b", 10)]
    assert trained(nodes, constants, ("batch", 4), ("rows", 10)) == {"w", "b"}


def test_what_is_joined_from_constants_alone_is_one_and_its_first_part_is_learned():
    nodes = [node("Concat", "w fixed", "joined", axis=1), node("MatMul", "x joined", "y")]
    constants = [weight("w", 4, 7), weight("fixed", 4, 3)]
    assert trained(nodes, constants, ("batch", 4), ("batch", 10)) == {"w"}
