"""Residual streams in steps of their grid: the same function, and scales of 1 where branches are added."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from labkit.convert import ExportOnnx
from labkit.onnx_graph import Graph, open_graph
from labkit.progress import silent
from labkit.quantize import QuantizeInt8
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.gate import start
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.graph.qdq import activation_grids
from labkit.quantize.graph.streams import carry_in_steps, find_streams
from labkit.quantize.mixed import QuantizeMixed
from labkit.quantize.sensitivity import FLOAT_BITS
from labkit.runtimes import get_runtime
from labkit.technique import probe
from labkit.zoo import load_model
from tests.graphs import build, constant, data_for, node, weight
from tests.quantized import ranges_of

PADS = {"pads": [1] * 4}
HEAD = [node("GlobalAveragePool", "r3", "g"), node("Flatten", "g", "f"), node("Gemm", "f w4 b4", "y")]
BODY = [
    node("Conv", "x w1 b1", "c1", **PADS),
    node("Relu", "c1", "r1"),
    node("Conv", "r1 w2 b2", "c2", **PADS),
    node("Relu", "c2", "r2"),
    node("Conv", "r2 w3 b3", "c3", **PADS),
    node("Add", "c3 r1", "a"),
    node("Relu", "a", "r3"),
]
SIZES = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "w4": (8, 10)}
CONSTANTS = [weight(name, *size) for name, size in SIZES.items()]
CONSTANTS += [weight("b1", 8), weight("b2", 8), weight("b3", 8), weight("b4", 10)]


def residual(body=BODY, head=HEAD, extra=(), without=()):
    kept = [each for each in CONSTANTS if each.name not in without]
    return build([*body, *head], [*kept, *extra])


def swap(nodes, **changed):
    """`nodes` with those replaced that make the outputs named in `changed`."""
    return [new for old in nodes for new in changed.get(old.output[0], [old])]


def planned(variant):
    model = open_graph(variant.payload)
    plan = make_plan(model, runtime="openvino")
    samples = data_for(variant).split("calibration")
    return model, plan, ranges_of(variant, model, sorted(set(plan.tensors.values())), samples)


def outputs(variant, model, feeds):
    with get_runtime("onnxruntime").load(
        dataclasses.replace(variant, model=model.SerializeToString())
    ) as session:
        return next(iter(session.run(feeds).values()))


def test_a_stream_is_what_is_added_up_and_all_that_must_be_rescaled_with_it():
    variant = residual()
    model, plan, _ = planned(variant)
    (stream,) = find_streams(Graph(model), plan)
    assert stream.members == {"c1", "r1", "c3", "a", "r3", "g", "f"}
    assert stream.grids == {"r1"}
    assert {layer.weight for layer in stream.writers} == {"w1", "w3"}
    assert {layer.weight for layer in stream.readers} == {"w2", "w4"}


def test_the_function_stays_and_the_stream_has_steps_of_exactly_1():
    variant = residual()
    model, plan, ranges = planned(variant)
    feeds = probe(variant, 5)
    before = outputs(variant, model, feeds)
    moved = carry_in_steps(model, plan, ranges)
    np.testing.assert_allclose(outputs(variant, model, feeds), before, rtol=1e-5, atol=1e-6)
    assert (moved["x"], moved["r2"]) == (ranges["x"], ranges["r2"])
    grids, old = activation_grids(moved), activation_grids(ranges)
    assert grids["r1"].scale == 1.0 and grids["r1"].zero_point == 0
    np.testing.assert_allclose(grids["g"].scale, old["g"].scale / old["r1"].scale, rtol=1e-6)


def test_the_integers_of_the_file_are_those_of_a_file_whose_stream_was_not_rescaled(monkeypatch):
    variant = residual()
    dataset = data_for(variant)
    monkeypatch.setattr("labkit.quantize.gate.carry_in_steps", lambda model, plan, ranges: ranges)
    plain = QuantizeInt8(runtime="openvino", max_drop_pp=15.0)(variant, dataset)
    monkeypatch.undo()
    carried = QuantizeInt8(runtime="openvino", max_drop_pp=15.0)(variant, dataset)
    first, second = (Graph(onnx.load_model_from_string(each.payload)) for each in (plain, carried))
    assert first.constants.keys() == second.constants.keys()
    integers = [name for name in first.constants if name.endswith("/quantized")]
    assert len(integers) == 8
    for name in integers:
        difference = first.constant(name).astype(np.int64) - second.constant(name)
        assert np.abs(difference).max() <= 1 and (difference == 0).mean() > 0.97
    assert first.constant("r1/scale") != 1.0 and second.constant("r1/scale") == 1.0


def test_a_stream_with_numbers_of_both_signs_keeps_a_zero_point_that_is_whole():
    linear = swap(BODY, r1=[node("MaxPool", "c1", "r1", kernel_shape=[1, 1])])
    variant = residual(linear)
    model, plan, ranges = planned(variant)
    feeds = probe(variant, 5)
    before = outputs(variant, model, feeds)
    grids = activation_grids(carry_in_steps(model, plan, ranges))
    grid = grids[plan.tensors["r1"]]
    assert grid.scale == 1.0 and 50 < grid.zero_point < 200
    np.testing.assert_allclose(outputs(variant, model, feeds), before, rtol=1e-5, atol=1e-6)


TWO = {  # two blocks on one stream: what is added up is first r1, then r3
    "r3": [
        node("Relu", "a", "r3"),
        node("Conv", "r3 w5 b5", "c5", **PADS),
        node("Add", "c5 r3", "a2"),
        node("Relu", "a2", "r5"),
    ],
    "g": [node("GlobalAveragePool", "r5", "g")],
}
FIVE = [weight("w5", 8, 8, 3, 3), weight("b5", 8)]


def test_all_that_is_added_up_shares_the_widest_grid():
    model, plan, ranges = planned(residual(swap(BODY, **TWO), swap(HEAD, **TWO), FIVE))
    (stream,) = find_streams(Graph(model), plan)
    assert stream.grids == {"r1", "r3"}
    moved = carry_in_steps(model, plan, ranges)
    assert moved["r1"] == moved["r3"] == Range(0.0, 255.0)


def test_a_tensor_that_would_lose_more_than_two_bits_keeps_its_grid():
    model, plan, ranges = planned(residual(swap(BODY, **TWO), swap(HEAD, **TWO), FIVE))
    for times, carried in ((3.9, True), (4.1, False)):
        wide = {**ranges, "r1": Range(0.0, 1.0), "r3": Range(0.0, times)}
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        assert (carry_in_steps(copy, plan, wide) != wide) is carried
        assert (copy != model) is carried


CLIPPED = {"r3": [node("Clip", "a low high", "r3")]}
LIMITS = [constant("low", 0.0), constant("high", 6.0)]
SHIFTED = {"r3": [node("Add", "a shift", "s"), node("Relu", "s", "r3")]}
BENT = {"r3": [node("Sigmoid", "a", "r3")]}
OTHERS_WEIGHT = {"c2": [node("Conv", "r1 w3 b2", "c2", **PADS)]}
OTHERS_BIAS = {"c2": [node("Conv", "r1 w2 b3", "c2", **PADS)]}
OF_THE_INPUT = {"a": [node("Conv", "x w6", "wide"), node("MaxPool", "x", "x2", kernel_shape=[1, 1]),
                      node("Concat", "x2 x2 wide", "cat", axis=1), node("Add", "c3 cat", "a")]}  # fmt: skip
FLOAT_READER = {"g": [node("Conv", "r3 w7", "odd"), node("GlobalAveragePool", "odd", "g")]}
COMPUTED = [node("Abs", "w2", "w7")]


@pytest.mark.parametrize(
    ("body", "head", "extra", "without"),
    [
        (swap(BODY, **CLIPPED), HEAD, LIMITS, ()),
        (swap(BODY, **SHIFTED), HEAD, [constant("shift", 1.0)], ()),
        (swap(BODY, **BENT), HEAD, (), ()),
        (swap(BODY, **OTHERS_WEIGHT), HEAD, (), ("w2",)),
        (swap(BODY, **OTHERS_BIAS), HEAD, (), ("b2",)),
        (swap(BODY, **OF_THE_INPUT), HEAD, [weight("w6", 2, 3, 1, 1)], ()),
        ([*COMPUTED, *BODY], swap(HEAD, **FLOAT_READER), (), ()),
        (BODY, [*HEAD[:1], node("Flatten", "g", "y")], (), ("w4", "b4")),
    ],
    ids=["clip", "shift", "sigmoid", "weight twice", "bias twice", "input", "float layer", "output"],
)
def test_a_stream_that_cannot_be_rescaled_is_left_alone(body, head, extra, without):
    kept = [each for each in CONSTANTS if each.name not in without]
    outputs = ("batch", 8) if "w4" in without else ("batch", 10)
    variant = build([*body, *head], [*kept, *extra], outputs=outputs)
    model = open_graph(variant.payload)
    assert not find_streams(Graph(model), make_plan(model, runtime="openvino"))


def test_weights_that_would_overflow_leave_the_stream_as_it_is():
    large = constant("w3", np.full((8, 8, 3, 3), 10.0))
    model, plan, ranges = planned(residual(extra=[large], without=("w3",)))
    tiny = {**ranges, "r1": Range(0.0, 1e-37)}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert carry_in_steps(model, plan, tiny) == tiny
    assert model == copy


def test_nothing_added_up_is_nothing_to_carry():
    variant = residual(swap(BODY, a=[node("Relu", "c3", "a")]))
    model, plan, ranges = planned(variant)
    assert carry_in_steps(model, plan, ranges) == ranges


@pytest.mark.parametrize(
    "changed", [{}, {"w3": 4}, {"w3": FLOAT_BITS}, {"w2": FLOAT_BITS}, {"w1": FLOAT_BITS}]
)
def test_a_mixed_model_carries_its_stream_in_steps_too_whatever_the_bits_of_a_layer(changed):
    variant = residual()
    dataset = data_for(variant)
    technique = QuantizeMixed(runtime="openvino", rounding="nearest", calibration_samples=64)
    candidates = technique.stock(variant, dataset, silent)
    model, _, _ = candidates.assemble({**dict.fromkeys(candidates.names, 8), **changed})
    graph = Graph(model)
    assert graph.constant("r1/scale") == 1.0 or "w2" in changed
    feeds = variant.feeds(dataset.split("calibration").take(slice(0, 64)).inputs)
    y, y_float = (outputs(variant, each, feeds) for each in (model, open_graph(variant.payload)))
    assert np.square(y - y_float).sum() < 0.001 * np.square(y_float).sum()


def test_resnet20_for_openvino_adds_up_in_steps_of_1(digits):
    exported = ExportOnnx()(load_model("resnet20@digits"), digits)
    work = start(exported, "openvino")
    streams = find_streams(Graph(work.model), work.plan)
    assert [len(stream.grids) for stream in sorted(streams, key=lambda each: -len(each.grids))] == [4, 3, 2]
    graph = Graph(onnx.load_model_from_string(QuantizeInt8(runtime="openvino")(exported, digits).payload))
    steps = {each: float(graph.constant(f"{each}/scale")) for stream in streams for each in stream.grids}
    assert set(steps.values()) == {1.0}
