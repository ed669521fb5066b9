"""What equalisation is good for, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.quantize import QuantizeInt8
from labkit.quantize.equalize import Equalize, Unbalance
from labkit.quantize.graph.plan import Plan, make_plan
from labkit.quantize.graph.qdq import round_weights, weight_grids
from labkit.quantize.noise import measure_noise
from labkit.quantize.weight_only import QuantizeWeights
from labkit.technique import probe
from tests.graphs import batch_norm, build, data_for, mlp, node, weight
from tests.pairs import (
    NETS,
    RELU,
    answers,
    between_two,
    chain,
    constants_of,
    kinds,
    largest,
    pairs_of,
    with_constants,
)


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
