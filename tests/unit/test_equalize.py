"""Equalize and Unbalance: the same function, another balance; and hands off whatever cannot be rescaled."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.onnx_graph.optimize import optimize_graph
from labkit.quantize import QuantizeInt8
from labkit.quantize.equalize import Equalize, Unbalance, _pairs
from labkit.quantize.graph.plan import Plan, make_plan
from labkit.quantize.graph.qdq import round_weights, weight_grids
from labkit.quantize.noise import measure_noise
from labkit.quantize.weight_only import QuantizeWeights
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import (
    attention,
    batch_norm,
    branches,
    build,
    constant,
    data_for,
    mlp,
    node,
    small_cnn,
    weight,
)

SIX = [constant("low", 0.0), constant("six", 6.0)]


def answers(variant, x):
    with get_runtime("onnxruntime").load(variant) as session:
        return session.run({"x": x})["y"]


def kinds(variant):
    return Counter(each.op_type for each in onnx.load_model_from_string(variant.payload).graph.node)


def pairs_of(variant):
    model = open_graph(variant.payload)
    fold_batch_norm(model)
    join_bias(model)
    return list(_pairs(Graph(model)))


def loud(name, *shape):
    """Weights of a few units: so that activations pass 6."""
    tensor = weight(name, *shape)
    return constant(name, 4 * numpy_helper.to_array(tensor))


def chain(*between, bias=True, depthwise=False, channels=8):
    """Conv, what is between, Conv, the same again, Conv; then pooled to 10 numbers."""
    nodes, constants, name, inputs = [], [], "x", 3
    for index in range(3):
        group = channels if depthwise and index == 1 else 1
        out = f"c{index}"
        nodes.append(node("Conv", f"{name} w{index}" + f" b{index}" * bias, out, pads=[1] * 4, group=group))
        constants.append(loud(f"w{index}", channels, inputs // group, 3, 3))
        constants += [loud(f"b{index}", channels)] * bias
        for place, kind in enumerate(between if index < 2 else ()):
            result = f"t{index}_{place}"
            nodes.append(between_node(kind, out, result))
            out = result
        name, inputs = out, channels
    nodes += [node("GlobalAveragePool", name, "g"), node("Flatten", "g", "f"), node("Gemm", "f wf bf", "y")]
    return build(nodes, [*constants, weight("wf", channels, 10), weight("bf", 10), *SIX])


def between_node(kind, source, result):
    if kind == "Relu6":
        return node("Clip", f"{source} low six", result)
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2]} if kind.endswith("Pool") else {}
    return node(kind, source, result, **pooling)


def dense_chain(turned, bias=True, act="Relu"):
    nodes, constants, name, inputs = [], list(SIX), "x", 24
    for index, outputs in enumerate((32, 20, 10)):
        last = index == 2
        w = weight(f"w{index}", *((outputs, inputs) if turned else (inputs, outputs)))
        settings = {"transB": 1} if turned else {}
        made = "y" if last else f"h{index}"
        nodes.append(node("Gemm", f"{name} w{index}" + f" b{index}" * bias, made, **settings))
        if not last:
            nodes.append(between_node(act, made, f"r{index}"))
        constants += [w, *[weight(f"b{index}", outputs)] * bias]
        name, inputs = f"r{index}", outputs
    used = {each for made in nodes for each in made.input}
    return build(nodes, [each for each in constants if each.name in used], ("batch", 24))


NETS = {
    "relu": (lambda: chain("Relu"), 2),
    "nothing between": (lambda: chain(), 2),
    "no bias": (lambda: chain("Relu", bias=False), 2),
    "relu6": (lambda: chain("Relu6"), 2),
    "relu6, depthwise": (lambda: chain("Relu6", depthwise=True), 2),
    "depthwise": (lambda: chain("Relu", depthwise=True), 2),
    "pooled": (lambda: chain("Relu", "MaxPool"), 2),
    "pooled first": (lambda: chain("AveragePool", "Relu6"), 2),
    "two caps": (lambda: chain("Relu6", "MaxPool", "Relu6"), 2),
    "mlp": (mlp, 1),
    "gemm": (lambda: dense_chain(0), 2),
    "gemm, turned": (lambda: dense_chain(1), 2),
    "gemm, no bias": (lambda: dense_chain(0, bias=False), 2),
    "gemm, relu6": (lambda: dense_chain(1, act="Relu6"), 2),
}


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


def largest(values, axis):
    return np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis))


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


def constants_of(variant):
    graph = Graph(open_graph(variant.payload))
    return {name: graph.constant(name) for name in graph.constants}


def named_caps(variant):
    return [(name, values) for name, values in constants_of(variant).items() if name.endswith("/cap")]


def with_constants(variant, values):
    model = open_graph(variant.payload)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return dataclasses.replace(variant, model=model.SerializeToString())


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


def between_two(*nodes, constants=(), outputs=("batch", 10), **attributes):
    """Conv (c) … (r) Conv → 10 numbers."""
    whole = [
        node("Conv", "x w0 b0", "c", pads=[1] * 4),
        *nodes,
        node("Conv", "r w1", "d", pads=[1] * 4, **attributes),
        node("GlobalAveragePool", "d", "g"),
        node("Flatten", "g", "y"),
    ]
    groups = attributes.get("group", 1)
    weights = [
        weight("w0", 8, 3, 3, 3),
        weight("b0", 8),
        weight("w1", 10 if groups == 1 else 8, 8 // groups, 3, 3),
    ]
    return build(whole, [*weights, *constants], outputs=("batch", 8) if groups > 1 else outputs)


RELU = node("Relu", "c", "r")
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


# --- what it is good for ----------------------------------------------------------------------------


def weight_snr_db(variant):
    """The worst signal-to-noise ratio of a weight under per-tensor int8."""
    model = open_graph(variant.payload)
    fold_batch_norm(model)
    join_bias(model)
    graph, plan = Graph(model), make_plan(model)
    plan = Plan(plan.layers, {}, plan.left)
    weights = round_weights(graph, weight_grids(graph, plan, {}, per_channel=False))
    samples = data_for(variant, 8).split("train")
    return measure_noise(variant, model, plan, {}, weights, samples)[0].snr_db


@pytest.mark.parametrize("name", ["relu", "relu6, depthwise", "gemm, turned"])
def test_per_tensor_grids_lose_unbalanced_channels_and_find_them_again(name):
    variant = NETS[name][0]()
    unbalanced = Unbalance(spread=1000.0)(variant)
    before, worse, cured = map(weight_snr_db, (variant, unbalanced, Equalize()(unbalanced)))
    assert before > 30 and worse < 15 and cured > before - 3


def test_on_a_trained_network_it_undoes_the_collapse(onnx_cases):
    variant, dataset = onnx_cases["image"]
    int8 = QuantizeInt8(granularity="per_tensor", max_drop_pp=100.0)
    unbalanced = Unbalance(spread=1e5)(variant)
    networks = (variant, unbalanced, int8(variant, dataset), int8(unbalanced, dataset))
    plain, still, good, bad = (evaluate(each, dataset, "validation").mean() for each in networks)
    cured = evaluate(int8(Equalize()(unbalanced), dataset), dataset, "validation").mean()
    print(
        f"float {plain:.3f}, unbalanced {still:.3f}; per tensor {good:.3f}, {bad:.3f}, equalised {cured:.3f}"
    )
    assert plain == still and bad < plain - 0.2
    assert cured > good - 0.01 and (cured - bad) / (plain - bad) > 0.9


def test_a_channel_of_hardly_any_weight_does_not_make_its_bias_immense():
    """Batch norms that training switched off leave such channels; stretched, their biases would fill the grid."""
    variant = between_two(RELU)
    values = constants_of(variant)
    values["w0"] = values["w0"].copy()
    values["w0"][3] = 1e-30
    values["b0"] = np.where(np.arange(8) == 3, np.float32(2.0), values["b0"])
    dead = with_constants(variant, values)
    after = constants_of(Equalize()(dead))["b0"]
    assert np.abs(after).max() < 100
    by_weights_alone = 2.0 * np.sqrt(largest(values["w1"], 1)[3] / 1e-30)
    assert by_weights_alone > 1e14
    x = probe(dead, 3)["x"]
    np.testing.assert_allclose(answers(Equalize()(dead), x), answers(dead, x), atol=1e-5)


def test_channels_of_nothing_but_zeros_are_no_trouble():
    variant = between_two(RELU)
    values = {name: each.copy() for name, each in constants_of(variant).items()}
    values["w0"][1], values["b0"][1] = 0, 0
    values["w0"][2] = 0
    values["w1"][:, 4] = 0
    pruned = with_constants(variant, values)
    x = probe(pruned, 3)["x"]
    np.testing.assert_allclose(answers(Equalize()(pruned), x), answers(pruned, x), atol=1e-5)


def test_batch_normalisations_are_folded_first():
    nodes = [
        node("Conv", "x w0", "c", pads=[1] * 4),
        node("BatchNormalization", "c gamma1 beta1 mean1 var1", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r w1", "d"),
        node("GlobalAveragePool", "d", "g"),
        node("Flatten", "g", "y"),
    ]
    variant = build(nodes, [weight("w0", 16, 3, 3, 3), weight("w1", 10, 16, 3, 3), *batch_norm(1)])
    equalized, x = Equalize()(variant), probe(variant, 3)["x"]
    assert not kinds(equalized)["BatchNormalization"]
    np.testing.assert_allclose(answers(equalized, x), answers(variant, x), atol=1e-5)


# --- what must not pass in silence ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad):
    variant = chain("Relu")
    values = {name: each.copy() for name, each in constants_of(variant).items()}
    values["w1"].flat[5] = bad
    with pytest.raises(TechniqueError, match="weight 'w1'.*holds 1 values"):
        Equalize()(with_constants(variant, values))


def test_a_quantized_model_is_not_equalized():
    with pytest.raises(TechniqueError, match="quantized already: start from the float model"):
        Equalize()(QuantizeWeights()(mlp()))


@pytest.mark.parametrize("make", [lambda: Equalize(relu6="drop"), lambda: Unbalance(spread=1.0)])
def test_a_knob_out_of_range_names_itself(make):
    with pytest.raises(ConfigError, match=r"Equalize.relu6='drop'|Unbalance.spread=1.0"):
        make()


def test_the_same_input_gives_the_same_bytes():
    variant = chain("Relu6")
    assert Equalize()(variant).payload == Equalize()(variant).payload
    assert Unbalance(seed=1)(variant).payload == Unbalance(seed=1)(variant).payload
    assert Unbalance(seed=1)(variant).payload != Unbalance(seed=2)(variant).payload


def test_it_can_be_stopped_at_every_report():
    variant, reports = chain("Relu"), []
    Equalize()(variant, None, lambda fraction, message: reports.append((fraction, message)))
    assert [each for each, _ in reports] == sorted(each for each, _ in reports) and len(reports) > 2
    assert reports[0][1].startswith("2 pairs of layers, round 1: a channel moved by ")
    for stop_at in range(len(reports)):
        seen = []

        def stop(fraction, message, seen=seen, stop_at=stop_at):
            seen.append(fraction)
            if len(seen) > stop_at:
                raise Cancelled

        with pytest.raises(Cancelled):
            Equalize()(variant, None, stop)
        assert len(seen) == stop_at + 1


def test_a_convolution_and_a_matrix_product_have_their_channels_on_different_axes():
    """Eight channels, eight places: the sizes would agree, and the function would be another."""
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("MatMul", "r v", "y")]
    constants = [weight("w", 8, 4, 1), weight("v", 8, 5)]
    assert not pairs_of(build(nodes, constants, ("batch", 4, 8), ("batch", 8, 5)))


def test_pooling_after_a_matrix_product_runs_over_its_channels():
    nodes = [
        node("MatMul", "x w", "c"),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[1]),
        node("MatMul", "p v", "y"),
    ]
    constants = [weight("w", 4, 8), weight("v", 8, 5)]
    assert not pairs_of(build(nodes, constants, ("batch", 3, 4), ("batch", 3, 5)))
    without = [node("MatMul", "x w", "c"), node("Relu", "c", "r"), node("MatMul", "r v", "y")]
    assert len(pairs_of(build(without, constants, ("batch", 3, 4), ("batch", 3, 5)))) == 1
