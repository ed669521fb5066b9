"""A layer keeps its name through every technique: that is how a profile is compared with the baseline's."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from labkit.explain.layers import ModelFile
from labkit.onnx_graph import Graph, fold_batch_norm, open_graph
from labkit.quantize import QuantizeDynamic, QuantizeInt8, QuantizeWeights, StoreHalf
from tests.graphs import batch_norm, build, data_for, node, small_cnn, weight


def named_by_weights():
    """As PyTorch writes it: blocks.0.conv.weight, and operators that are numbered."""
    variant = small_cnn()
    model = onnx.load_model_from_string(variant.payload)
    names = {"w1": "stem.conv.weight", "w2": "blocks.0.conv.weight", "w3": "fc.weight"}
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for index, each in enumerate(model.graph.node):
        each.name = f"node_{each.op_type}_{index}"
        each.input[:] = [names.get(name, name) for name in each.input]
    return dataclasses.replace(variant, model=model.SerializeToString())


TECHNIQUES = {
    "int8": QuantizeInt8(max_drop_pp=100),
    "dynamic": QuantizeDynamic(convolutions=True, max_drop_pp=100),
    "8-bit weights": QuantizeWeights(bits=8),
    "4-bit weights": QuantizeWeights(bits=4, max_drop_pp=100),
    "half": StoreHalf(),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(
    ("make", "names"),
    [(small_cnn, ["w1", "w2", "w3"]), (named_by_weights, ["stem.conv", "blocks.0.conv", "fc"])],
)
def test_a_layer_has_the_same_name_before_and_after(make, names, technique):
    variant = make()
    changed = TECHNIQUES[technique](variant, data_for(variant, 32))
    for each in (variant, changed):
        assert [layer.name for layer in ModelFile(each, 2).layers] == names


def test_an_operator_s_own_name_comes_before_that_of_a_weight_that_tells_nothing():
    variant = small_cnn()
    model = onnx.load_model_from_string(variant.payload)
    model.graph.node[0].name = "stem"
    named = dataclasses.replace(variant, model=model.SerializeToString())
    for each in (named, QuantizeInt8(max_drop_pp=100)(named, data_for(variant, 32))):
        assert [layer.name for layer in ModelFile(each, 2).layers] == ["stem", "w2", "w3"]


def test_a_weight_that_two_convolutions_share_is_folded_into_two():
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Conv", "n1 w1", "c2", pads=[1] * 4),
        node("BatchNormalization", "c2 gamma2 beta2 mean2 var2", "n2"),
        node("GlobalAveragePool", "n2", "g"),
        node("Flatten", "g", "y"),
    ]
    constants = [weight("w1", 3, 3, 3, 3), *batch_norm(1, 3), *batch_norm(2, 3)]
    model = open_graph(build(nodes, constants, outputs=("batch", 3)).payload)
    assert fold_batch_norm(model) == 2
    assert Graph(model).constants.keys() == {"n1/weight", "n1/bias", "n2/weight", "n2/bias"}
