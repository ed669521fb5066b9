"""What a file tells about its layers, and its stand-ins with one cause taken away."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from labkit.explain.evidence import unaligned
from labkit.explain.layers import ModelFile
from labkit.explain.rewrite import Chain, unsigned
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import W, network


def test_unsigned_grids_hold_the_same_numbers():
    scale, zero = np.float32(0.05), np.int8(-7)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    signed = network(*nodes, scale=scale, zero=zero, w=W)
    lifted = unsigned(signed)
    assert lifted is not None
    feeds = {"x": np.linspace(-9, 9, 60, dtype=np.float32).reshape(10, 6)}  # beyond both ends of the grid
    runtime = get_runtime("onnxruntime")
    with runtime.load(signed) as first, runtime.load(lifted) as second:
        np.testing.assert_array_equal(first.run(feeds)["y"], second.run(feeds)["y"])
    assert unsigned(lifted) is None


@pytest.mark.parametrize(("zero", "can"), [(0, True), (-7, False)])
def test_a_zero_point_that_is_left_out_is_moved_up_with_the_grid(zero, can):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    signed = network(*nodes, scale=np.float32(0.05), zero=np.int8(zero), w=W)
    lifted = unsigned(signed)
    assert (lifted is not None) == can, "a grid that is read with another zero point stays"
    if lifted is not None:
        feeds, runtime = probe(signed, 10), get_runtime("onnxruntime")
        with runtime.load(signed) as first, runtime.load(lifted) as second:
            np.testing.assert_array_equal(first.run(feeds)["y"], second.run(feeds)["y"])


def test_without_a_zero_point_the_grid_is_that_of_the_integers():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["m"], "signed"),
        helper.make_node("QuantizeLinear", ["m", "scale"], ["mq"]),
        helper.make_node("DequantizeLinear", ["mq", "scale"], ["md"]),
        helper.make_node("MatMul", ["md", "w"], ["y"], "by default"),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.int8(0), "w8": np.ones((6, 6), np.int8)}
    layers = ModelFile(network(*nodes, **constants), 6).layers
    assert [(each.input_grid, each.output_grid) for each in layers] == [("int8", "uint8"), ("uint8", "")]


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_chain_runs_and_has_the_multiply_adds_that_it_says(int8, runtime):
    chain = Chain(5, 7, (3, 3), (8, 8), int8)
    variant = chain.variant()
    assert sum(layer.macs or 0 for layer in ModelFile(variant, 3).layers) == chain.macs(3)
    with get_runtime(runtime).load(variant) as session:
        assert np.isfinite(session.run(probe(variant, 3))["y"]).all()
    assert (chain.aligned(8).inputs, chain.aligned(8).outputs) == (8, 8)


def test_the_file_tells_why_a_layer_cannot_be_computed_in_integers():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["both"], "both"),
        helper.make_node("MatMul", ["both", "w"], ["weight"], "weight"),
        helper.make_node("MatMul", ["d", "plain"], ["input"], "input"),
        helper.make_node("MatMul", ["weight", "input"], ["y"], "none"),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.uint8(3), "w8": np.ones((6, 6), np.int8), "plain": W}
    file = ModelFile(network(*nodes, **constants), 6)
    grids = {layer.node: (layer.input_grid, layer.weight_grid, layer.on_grids) for layer in file.layers}
    assert grids == {
        "both": ("uint8", "int8", True),
        "weight": ("", "int8", False),
        "input": ("uint8", "", False),
        "none": ("", "", False),
    }
    assert file.layers[-1].weight is None


@pytest.mark.parametrize(
    ("inputs", "outputs", "odd"), [(32, 32, False), (30, 32, True), (1, 16, False), (16, 30, True)]
)
def test_channels_that_leave_a_rest_are_seen(inputs, outputs, odd):
    layer = ModelFile(Chain(inputs, outputs, (3, 3), (4, 4), False).variant(), 1).layers[0]
    assert unaligned(layer, 16) == odd


def test_a_weight_that_is_made_from_nothing_is_a_computed_one():
    nodes = [
        helper.make_node("RandomNormal", [], ["drawn"], shape=[6, 6]),
        helper.make_node("MatMul", ["x", "drawn"], ["y"], "product"),
    ]
    (layer,) = ModelFile(network(*nodes), 6).layers
    assert (layer.node, layer.weight, layer.weight_grid) == ("product", None, "")
