"""Files from others: they may hold any name, and the old ones list their weights among their inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper

from labkit import (
    Equalize,
    QuantizeAware,
    QuantizeDynamic,
    QuantizeInt8,
    QuantizeMixed,
    QuantizeWeights,
    StoreHalf,
)
from labkit.errors import ModelFileError
from labkit.explain.rewrite import unsigned
from labkit.onnx_graph import Graph, fold_batch_norm, open_graph, own_biases
from labkit.runtimes import get_runtime
from tests.graphs import batch_norm, branches, build, constant, data_for, node, weight


def network():
    """Something for everyone: a fold, a shared bias, a cap, a turned weight, a product with a ReLU."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Clip", "n1 low high", "r1"),
        node("Conv", "r1 w2 b", "c2", pads=[1] * 4),
        node("Clip", "c2 low high", "r2"),
        node("Conv", "r2 w3 b", "c3", pads=[1] * 4),
        node("Add", "c3 r2", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w4 b4", "g", transB=1),
        node("Relu", "g", "h"),
        node("MatMul", "h w5", "last"),
        node("Identity", "last", "y"),
    ]
    constants = [weight("w1", 16, 3, 3, 3), weight("w2", 16, 16, 3, 3), weight("w3", 16, 16, 3, 3)]
    constants += [weight("b", 16), *batch_norm(1), constant("low", 0.0), constant("high", 6.0)]
    constants += [weight("w4", 32, 16), weight("b4", 32), weight("w5", 32, 10)]
    return build(nodes, constants)


def names_of(variant):
    graph = onnx.load_model_from_string(variant.payload).graph
    return {t.name for t in graph.initializer} | {name for n in graph.node for name in n.output}


def holding(variant, names):
    """The same function, its result handed on through a tensor of each of `names`."""
    model = onnx.load_model_from_string(variant.payload)
    end = model.graph.node.pop()
    chain = [end.input[0], *sorted(names), end.output[0]]
    for source, result in zip(chain[:-1], chain[1:], strict=True):
        model.graph.node.append(helper.make_node("Identity", [source], [result]))
    return dataclasses.replace(variant, model=model.SerializeToString())


def listing_weights(variant):
    """As files before 2019 had to be: every weight stands among the inputs too, with its shape."""
    model = onnx.load_model_from_string(variant.payload)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        listed = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(listed)
    return dataclasses.replace(variant, model=model.SerializeToString())


def rewritten(rewrite):
    def apply(variant, dataset):
        model = open_graph(variant.payload)
        rewrite(model)
        return dataclasses.replace(variant, model=model.SerializeToString())

    return apply


def signed(variant, dataset):
    """Its input on a signed grid, which `unsigned` moves."""
    model = open_graph(variant.payload)
    model.graph.initializer.extend([constant("s", 0.05), constant("z", 3, np.int8)])
    first = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    nodes = [*first, *model.graph.node]
    nodes[2].input[0] = "d"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return unsigned(dataclasses.replace(variant, model=model.SerializeToString()))


ANY_DROP = {"max_drop_pp": 100}
CHANGES = {
    "int8": QuantizeInt8(**ANY_DROP),
    "dynamic": QuantizeDynamic(convolutions=True, **ANY_DROP),
    "8-bit weights": QuantizeWeights(bits=8, **ANY_DROP),
    "4-bit weights": QuantizeWeights(bits=4, granularity="per_group", **ANY_DROP),
    "mixed": QuantizeMixed(points=3, rounding="nearest", check_samples=32, **ANY_DROP),
    "aware": QuantizeAware(weight_bits=4, activation_bits=4, max_samples=32, epochs=1, **ANY_DROP),
    "half": StoreHalf(),
    "equalized": Equalize(),
    "folded": rewritten(fold_batch_norm),
    "own biases": rewritten(own_biases),
    "unsigned": signed,
}


def assert_same(changed, expected, dataset):
    onnx.checker.check_model(onnx.load_model_from_string(changed.payload), full_check=True)
    runtime, x = get_runtime("onnxruntime"), dataset.split("test").take(slice(0, 8)).inputs
    with runtime.load(expected) as one, runtime.load(changed) as other:
        np.testing.assert_allclose(other.run(x)["y"], one.run(x)["y"], atol=1e-5)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_graph_that_holds_the_names_already_gets_the_same_numbers(kind):
    variant = network()
    dataset = data_for(variant, 64)
    expected = CHANGES[kind](variant, dataset)
    names = {name for name in names_of(expected) - names_of(variant) if "/" in name}
    assert names
    assert_same(CHANGES[kind](holding(variant, names), dataset), expected, dataset)


@pytest.mark.parametrize("indices", [[1, 8], [[0, 1], [1, 2]]], ids=["counted through", "by axes"])
def test_a_sparse_constant_becomes_a_dense_one(indices):
    stored = [constant("W", [5.0, 7.0]), constant("W_indices", indices, np.int64)]
    dense = build([node("MatMul", "x W", "y")], [weight("W", 6, 6)], ("batch", 6), ("batch", 6))
    model = onnx.load_model_from_string(dense.payload)
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(*stored, [6, 6]))
    opened = open_graph(model.SerializeToString())
    expected = np.zeros((6, 6), np.float32)
    expected.flat[[1, 8]] = 5.0, 7.0
    np.testing.assert_array_equal(Graph(opened).constant("W"), expected)
    assert not opened.graph.sparse_initializer


@pytest.mark.parametrize("places", [("initializer",), ("node",), ("initializer", "node")])
def test_a_sparse_constant_that_no_file_can_hold_dense_is_refused_before_it_is_written_out(places):
    """One is enough, and so are many that would each still fit."""
    variant = build([node("Identity", "x", "y")], [], ("batch", 6), ("batch", 6))
    model = onnx.load_model_from_string(variant.payload)
    size = 2**20 if len(places) == 1 else 20_000
    for place in places:
        values, index = constant(f"S_{place}", [1.0]), constant("", [0], np.int64)
        sparse = helper.make_sparse_tensor(values, index, [size, size])
        if place == "initializer":
            model.graph.sparse_initializer.append(sparse)
        else:
            made = helper.make_node("Constant", [], ["S_node"], sparse_value=sparse)
            model.graph.node.insert(0, made)
    with pytest.raises(ModelFileError, match=rf"'S_{places[0]}' \[{size}, {size}\].* 2 GiB .*: run it"):
        open_graph(model.SerializeToString())


SPARSE = helper.make_sparse_tensor(constant("", [1.0, 2.0]), constant("", [0, 5], np.int64), [2, 3])
CONSTANTS = {
    "value": (constant("", [[1.0, 2.0]]), np.float32([[1, 2]])),
    "sparse_value": (SPARSE, np.float32([[1, 0, 0], [0, 0, 2]])),
    "value_float": (0.5, np.float32(0.5)),
    "value_floats": ([0.5, 2.0], np.float32([0.5, 2])),
    "value_int": (3, np.int64(3)),
    "value_ints": ([3, -1], np.int64([3, -1])),
    "value_string": ("a", np.array("a", object)),
    "value_strings": (["a", "b"], np.array(["a", "b"], object)),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_a_constant_node_of_any_kind_becomes_an_initializer(kind):
    given, expected = CONSTANTS[kind]
    values = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    made = helper.make_node("Constant", [], ["y"], **{kind: given})
    values.type.ClearField("tensor_type")
    model = helper.make_model(
        helper.make_graph([made], "g", [], [values]), opset_imports=[helper.make_opsetid("", 18)]
    )
    opened = open_graph(model.SerializeToString())
    found = Graph(opened).constant("y")
    assert not opened.graph.node
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_a_new_name_is_the_same_each_time_and_taken_from_then_on():
    graph = Graph(open_graph(holding(network(), ["x/scale"]).payload))
    assert graph.new_name("x/other") == "x/other"
    assert graph.new_name("x/scale") == graph.new_name("x/scale") == "x/scale_1"
    assert graph.new_name("x/scale_1") == "x/scale_1_1"


def test_a_name_inside_the_branch_of_an_if_is_taken_too():
    inner = helper.make_graph([helper.make_node("Identity", ["last"], ["last/scale"])], "branch", [], [])
    inner.output.add(name="last/scale")
    model = open_graph(network().payload)
    model.graph.node[-1].CopyFrom(
        helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner)
    )
    assert Graph(model).new_name("last/scale") == "last/scale_1"


@pytest.mark.parametrize("kind", CHANGES)
def test_weights_that_are_listed_among_the_inputs_are_rewritten_like_any(kind):
    variant = network()
    dataset = data_for(variant, 64)
    changed = CHANGES[kind](listing_weights(variant), dataset)
    assert_same(changed, CHANGES[kind](variant, dataset), dataset)
    graph = onnx.load_model_from_string(changed.payload).graph
    assert [value.name for value in graph.input] == ["x"]


def test_a_weight_that_a_constant_node_holds_needs_no_input():
    variant = branches()
    model = onnx.load_model_from_string(variant.payload)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    onnx.checker.check_model(open_graph(model.SerializeToString()), full_check=True)


def test_a_constant_that_nothing_reads_is_no_input_either():
    """Old exports of PyTorch list num_batches_tracked, which only training reads, among the inputs."""
    variant = network()
    model = onnx.load_model_from_string(variant.payload)
    model.graph.initializer.append(constant("bn1.num_batches_tracked", 7, np.int64))
    payload = listing_weights(dataclasses.replace(variant, model=model.SerializeToString())).payload
    graph = open_graph(payload).graph
    assert [value.name for value in graph.input] == ["x"]
    assert "bn1.num_batches_tracked" not in {tensor.name for tensor in graph.initializer}


def test_whose_code_made_a_node_is_nobodys_business():
    variant = network()
    model = onnx.load_model_from_string(variant.payload)
    for made in model.graph.node:
        for key, value in (("stack_trace", "/home/me/model.py, line 3"), ("name_scopes", "['', 'conv']")):
            made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    opened = open_graph(model.SerializeToString())
    keys = {entry.key for made in opened.graph.node for entry in made.metadata_props}
    assert keys == {"pkg.torch.onnx.name_scopes"} and b"/home/me" not in opened.SerializeToString()
