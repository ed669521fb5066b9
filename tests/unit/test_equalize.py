"""Equalize and Unbalance: the same function, another balance; and hands off whatever cannot be rescaled."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.onnx_graph.optimize import optimize_graph
from labkit.quantize import QuantizeInt8
from labkit.quantize.equalize import Equalize, Unbalance
from labkit.technique import probe
from tests.graphs import attention, branches, build, constant, data_for, node, small_cnn, weight
from tests.pairs import (
    NETS,
    RELU,
    SIX,
    answers,
    between_two,
    chain,
    constants_of,
    kinds,
    largest,
    pairs_of,
    with_constants,
)


@pytest.mark.parametrize("name", NETS)
def test_the_function_stays_what_it_was(name):
    make, count = NETS[name]
    variant = make()
    assert len(pairs_of(variant)) == count
    for technique in (Equalize(), Unbalance(spread=100.0)):
        changed = technique(variant)
        onnx.checker.check_model(onnx.load_model_from_string(changed.payload), full_check=True)
        for batch in (1, 3, 7):
            x = probe(variant, batch)["x"]
            expected = answers(variant, x)
            np.testing.assert_allclose(answers(changed, x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETS)
def test_afterwards_both_layers_of_a_pair_use_the_same_range(name):
    variant = NETS[name][0]()

    def disagreement(changed):
        graph, found = Graph(open_graph(changed.payload)), []
        for pair in pairs_of(changed):
            sides = ((pair.first, pair.first_axis), (pair.second, pair.second_axis))
            first, second = (largest(graph.constant(side), axis) for side, axis in sides)
            found.append(np.abs(np.log(first / second)).max())
        return max(found)

    assert disagreement(variant) > 0.3, "or there would be nothing to do"
    assert disagreement(Equalize()(variant)) < 0.01
    assert disagreement(Equalize()(Unbalance(spread=1000.0)(variant))) < 0.01


# --- caps -------------------------------------------------------------------------------------------


def test_a_relu6_stops_every_channel_at_a_number_of_its_own():
    variant = chain("Relu6")
    x = probe(variant, 3)["x"] * np.float32(3)
    equalized, expected = Equalize()(variant), answers(variant, x)
    assert kinds(equalized)["Min"] == 2 and not kinds(equalized)["Clip"]
    caps = [values for name, values in constants_of(equalized).items() if name.endswith("/cap")]
    assert all(np.ptp(cap) > 0.1 for cap in caps)
    np.testing.assert_allclose(answers(equalized, x), expected, atol=1e-5 * np.abs(expected).max())
    off = constants_of(equalized) | {name: np.full_like(cap, 6) for name, cap in named_caps(equalized)}
    broken = with_constants(equalized, off)
    assert np.abs(answers(broken, x) - expected).max() > 0.01 * np.abs(expected).max(), "the caps do matter"


def named_caps(variant):
    return [(name, values) for name, values in constants_of(variant).items() if name.endswith("/cap")]


@pytest.mark.parametrize("start", [lambda: chain("Relu6"), lambda: Unbalance(spread=9.0)(chain("Relu6"))])
def test_lifted_it_is_a_relu_and_another_function_where_an_activation_passed_6(start):
    variant = start()
    lifted = Equalize(relu6="lift")(variant)
    assert not kinds(lifted)["Min"] + kinds(lifted)["Clip"] and kinds(lifted)["Relu"] == 2
    quiet, passing = probe(variant, 3)["x"] * np.float32(0.05), probe(variant, 3)["x"] * np.float32(5)
    assert np.abs(answers(lifted, passing) - answers(variant, passing)).max() > 0.1
    calm = with_constants(
        variant, {**constants_of(variant), **{f"b{i}": np.zeros(8, np.float32) for i in range(3)}}
    )
    a, b = answers(Equalize(relu6="lift")(calm), quiet), answers(calm, quiet)
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_lifting_that_costs_too_much_is_refused_where_there_are_samples_to_see_it_on():
    plain = chain("Relu6")
    found = constants_of(plain)
    variant = with_constants(plain, {**found, "w0": 50 * found["w0"]})
    dataset = data_for(variant)
    with pytest.raises(TechniqueError, match="equalize costs 'user' .* points .*Try relu6='keep'"):
        Equalize(relu6="lift")(variant, dataset)
    assert Equalize(max_drop_pp=0.5)(variant, dataset) and Equalize(relu6="lift")(variant)


def test_the_form_says_that_lifting_changes_the_function():
    said = {field.name: field.metadata["help"] for field in dataclasses.fields(Equalize)}
    assert "another one where an activation passed 6" in said["relu6"]


def test_a_cap_that_belongs_to_no_pair_is_left_as_it_was():
    nodes = [
        node("Conv", "x w0", "c0"),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1", "c1"),
        node("Clip", "c1 low six", "r1"),
        node("GlobalAveragePool", "r1", "g"),
        node("Flatten", "g", "y"),
    ]
    variant = build(nodes, [weight("w0", 8, 3, 3, 3), weight("w1", 10, 8, 3, 3), *SIX])
    for relu6 in ("keep", "lift"):
        assert kinds(Equalize(relu6=relu6)(variant)) == kinds(variant)


def test_kept_caps_leave_the_convolutions_in_integers():
    """A grid before each cap and one behind: put behind alone, ONNX Runtime would compute the layers in float."""
    variant = Equalize()(chain("Relu6"))
    found = optimize_graph(QuantizeInt8(max_drop_pp=100.0)(variant, data_for(variant)).payload).operators
    assert (found["QLinearConv"], found["Min"]) == (3, 2) and "FusedConv" not in found and "Conv" not in found


# --- what must not be touched -----------------------------------------------------------------------


UNTOUCHED = {
    "sigmoid": lambda: between_two(node("Sigmoid", "c", "r")),
    "hard swish": lambda: between_two(node("HardSwish", "c", "r")),
    "a constant is added": lambda: between_two(
        node("Relu", "c", "s"), node("Add", "s one", "r"), constants=[constant("one", 1.0)]
    ),
    "a residual": lambda: between_two(
        node("Relu", "c", "s"),
        node("Conv", "s w2", "t", pads=[1] * 4),
        node("Add", "s t", "r"),
        constants=[weight("w2", 8, 8, 3, 3)],
    ),
    "two consumers": lambda: between_two(
        node("Relu", "c", "s"), node("Neg", "s", "n"), node("Max", "s n", "r")
    ),
    "a clip that starts above 0": lambda: between_two(
        node("Clip", "c low six", "r"), constants=[constant("low", 0.5), constant("six", 6.0)]
    ),
    "a cap for all channels at once": lambda: between_two(
        node("Min", "c cap", "r"), constants=[constant("cap", 6.0)]
    ),
    "groups": lambda: between_two(RELU, group=2),
    "attention": attention,
    "gelu": lambda: between_two(node("Erf", "c", "e"), node("Mul", "c e", "r")),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_where_the_function_would_change_nothing_is_touched(name):
    variant = UNTOUCHED[name]()
    pairs = pairs_of(variant)
    assert not {"w0", "wq"} & {pair.first for pair in pairs}
    if not pairs:
        with pytest.raises(TechniqueError, match="no two layers with nothing but a ReLU between them"):
            Equalize()(variant)


def test_the_same_with_a_relu_is_a_pair():
    """The negative control of all of these."""
    (pair,) = pairs_of(between_two(RELU))
    assert (pair.first, pair.bias, pair.second, pair.channels) == ("w0", "b0", "w1", 8)


def test_an_output_of_the_model_is_not_rescaled():
    variant = between_two(RELU)
    model = onnx.load_model_from_string(variant.payload)
    model.graph.output.append(onnx.ValueInfoProto(name="r"))
    assert not pairs_of(dataclasses.replace(variant, model=model.SerializeToString()))


@pytest.mark.parametrize("shared", ["w0", "b0", "w1"])
def test_a_shared_weight_or_bias_is_not_rescaled(shared):
    variant = between_two(RELU)
    model = onnx.load_model_from_string(variant.payload)
    model.graph.node.append(node("ReduceMax", shared, "peak", keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("peak", onnx.TensorProto.FLOAT, []))
    assert not pairs_of(dataclasses.replace(variant, model=model.SerializeToString()))


@pytest.mark.parametrize("shape", [(1, 20), (1,), ()])
def test_a_bias_that_is_not_one_number_per_channel_is_left_alone(shape):
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "y")]
    variant = build(
        nodes, [weight("w", 24, 20), constant("b", np.ones(shape)), weight("w2", 20, 10)], ("batch", 24)
    )
    assert not pairs_of(variant)


@pytest.mark.parametrize("make", [small_cnn, branches])
def test_nets_without_a_pair_are_refused(make):
    for technique in (Equalize(), Unbalance()):
        with pytest.raises(TechniqueError, match="there is no scale to share"):
            technique(make())
