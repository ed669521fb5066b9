"""Learned rounding: what a layer sees is told rightly, and no method is worse than rounding to the nearest."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import Cancelled, DataError
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph, set_constant
from labkit.progress import silent
from labkit.quantize import QuantizeInt8, QuantizeWeights
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.quantize.calibration.calibrate import activations
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.rounding.adaround import adaround
from labkit.quantize.rounding.gptq import descend, gptq
from labkit.quantize.rounding.learn import learn_weights, shrunk
from labkit.quantize.rounding.moments import Moments, Rows, error
from labkit.runtimes import get_runtime
from labkit.technique import probe
from labkit.variant import Step
from tests.graphs import build, constant, conv1d, data_for, mlp, node, small_cnn, weight


def problem(outputs=6, inputs=12, groups=1, seed=0):
    """Random weights, correlated inputs, a 3-bit scale: (target, metric, scale)."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((groups, inputs, inputs))
    x = random.standard_normal((groups, 400, inputs)) @ mixing
    target = random.standard_normal((groups, outputs, inputs))
    scale = np.broadcast_to(np.abs(target).max(axis=2, keepdims=True) / 3, target.shape)
    return target, np.swapaxes(x, 1, 2) @ x / 400, scale


def nearest(target, scale):
    return np.clip(np.rint(target / scale), -4, 3)


METHODS = {
    "gptq": lambda *given: gptq(*given, -4, 3),
    "adaround": lambda *given: adaround(*given, -4, 3, silent),
    "descent": lambda *given: descend(gptq(*given, -4, 3), *given, -4, 3),
}


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_learned_rounding_gives_whole_numbers_in_range_that_serve_better(method, groups):
    better = 0
    for seed in range(5):
        target, metric, scale = problem(groups=groups, seed=seed)
        q = METHODS[method](target, metric, scale)
        assert np.array_equal(q, np.rint(q)) and q.min() >= -4 and q.max() <= 3
        better += error(metric, target, q * scale) < error(metric, target, nearest(target, scale) * scale)
    print(f"{method}: better than nearest in {better} of 5")
    assert better >= 4


def test_inputs_that_are_not_correlated_leave_nothing_to_learn():
    target, _, scale = problem()
    metric = np.eye(target.shape[2])[None] * np.arange(1.0, 13)
    assert np.array_equal(gptq(target, metric, scale, -4, 3), nearest(target, scale))


def plain_gptq(w, metric, scale, smallest, largest):
    """One output after the other, by the inverse of what is left: Frantar et al. 2023, equations 2 and 3."""
    w, q = w.copy(), np.zeros_like(w)
    order = np.argsort(-np.diag(metric), kind="stable")
    left = list(order)
    for j in order:
        inverse = np.linalg.inv(metric[np.ix_(left, left)])
        place = left.index(j)
        q[:, j] = np.clip(np.rint(w[:, j] / scale[:, j]), smallest, largest)
        err = (w[:, j] - q[:, j] * scale[:, j]) / inverse[place, place]
        w[:, left] -= err[:, None] * inverse[place]
        left.remove(j)
    return q


@given(st.integers(0, 1000))
def test_the_cholesky_form_is_the_paper_s_update(seed):
    target, metric, scale = problem(3, 6, seed=seed)
    metric = metric + 0.1 * np.eye(6)
    expected = plain_gptq(target[0], metric[0], scale[0], -4, 3)
    assert np.array_equal(gptq(target, metric, scale, -4, 3)[0], expected)


def test_descent_ends_where_no_single_step_helps():
    target, metric, scale = problem()
    q = descend(nearest(target, scale), target, metric, scale, -4, 3)
    least = error(metric, target, q * scale)
    assert least <= error(metric, target, nearest(target, scale) * scale)
    for row, column, step in itertools.product(range(6), range(12), (-1, 1)):
        other = q.copy()
        other[0, row, column] = np.clip(q[0, row, column] + step, -4, 3)
        assert error(metric, target, other * scale) >= least - 1e-9


def test_descent_finds_the_best_of_all_where_all_can_be_tried():
    """Two weights of 3 bits: 64 ways. Local search need not find the best, but comes close over many problems."""
    found = []
    for seed in range(20):
        target, metric, scale = problem(1, 2, seed=seed)
        q = METHODS["descent"](target, metric, scale)
        ways = [np.array(way, float).reshape(1, 1, 2) for way in itertools.product(range(-4, 4), repeat=2)]
        best = min(error(metric, target, way * scale) for way in ways)
        found.append(error(metric, target, q * scale) <= best + 1e-9)
    print(f"the best of 64 in {sum(found)} of 20")
    assert sum(found) >= 10


def test_adaround_can_be_stopped():
    def stop(fraction, message):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        adaround(*problem(), -4, 3, stop)


def layers_of(variant):
    model = open_graph(variant.payload)
    plan = make_plan(model)
    return model, plan


def strange_convolutions():
    """Strides, dilations, uneven pads, groups, depthwise, and pads that the engine works out."""
    nodes = [
        node("Conv", "x w1 b1", "c1", strides=[2, 1], pads=[1, 0, 2, 1]),
        node("Conv", "c1 w2", "c2", group=2, dilations=[2, 1]),
        node("Conv", "c2 w3 b3", "c3", group=8, auto_pad="SAME_UPPER", strides=[2, 2]),
        node("GlobalAveragePool", "c3", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w4 b4", "y", transB=1),
    ]
    constants = [
        weight("w1", 8, 3, 3, 2),
        weight("b1", 8),
        weight("w2", 8, 4, 2, 3),
        weight("w3", 8, 1, 3, 3),
    ]
    return build(nodes, [*constants, weight("b3", 8), weight("w4", 10, 8), weight("b4", 10)])


@pytest.mark.parametrize("make", [small_cnn, mlp, conv1d, strange_convolutions])
def test_a_layer_is_the_matrices_and_patches_that_it_is_taken_for(make):
    """W·x + b, from the matrices and the patches, is what ONNX Runtime's layer gives."""
    variant = make()
    model, plan = layers_of(variant)
    data = data_for(variant, 4).split("train")
    names = [name for layer in plan.layers for name in (layer.input, layer.output)]
    every = [dict(found) for found in activations(variant, model, sorted(set(names)), data, silent)]
    values = {name: np.concatenate([found[name] for found in every]) for name in names}
    for layer in plan.layers:
        rows, graph = Rows(Graph(model), layer), Graph(model)
        matrices = rows.matrices(graph.constant(layer.weight))
        assert np.array_equal(rows.weight(matrices), graph.constant(layer.weight))
        y = rows.patches(values[layer.input]) @ np.swapaxes(matrices, 1, 2)  # [groups, patches, outputs]
        outputs = np.concatenate(list(y), axis=1)
        if layer.bias:
            outputs = outputs + graph.constant(layer.bias)
        expected = values[layer.output]
        if layer.op_type == "Conv":
            expected = np.moveaxis(expected, 1, -1)
        np.testing.assert_allclose(outputs, expected.reshape(outputs.shape), atol=1e-4)


def test_the_metric_tells_the_squared_error_of_the_output():
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 500, 8)) @ random.standard_normal((8, 8)) + 10
    w = random.standard_normal((1, 4, 8))
    moments = Moments(is_centred=True)
    for part in np.array_split(x, 7, axis=1):
        moments.add(part, part)
    metric, target = moments.metric_and_target(w)
    np.testing.assert_allclose(target, w, atol=1e-9)  # nothing was wrong so far, so nothing is to be undone
    other = w + 0.1 * random.standard_normal(w.shape)
    shift = moments.bias_shift(w, other)
    difference = x @ np.swapaxes(other, 1, 2) + shift - x @ np.swapaxes(w, 1, 2)
    told, seen = error(metric, w, other), float(np.square(difference).sum(axis=2).mean())
    assert abs(told / seen - 1) < 0.02  # what is added to the diagonal makes it a little more
    without = float(np.square(difference - shift).sum(axis=2).mean())
    assert without > 1.5 * seen, "the bias must matter, or its correction is not tested"


def test_the_target_undoes_what_was_done_before():
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 2000, 8))
    worse = 0.7 * x + 0.05 * random.standard_normal(x.shape)
    w = random.standard_normal((1, 4, 8))
    moments = Moments(is_centred=False)
    moments.add(x, worse)
    _, target = moments.metric_and_target(w)

    def off(weights):
        return np.square(worse @ np.swapaxes(weights, 1, 2) - x @ np.swapaxes(w, 1, 2)).mean()

    assert off(target) < 0.1 * off(w)


@pytest.mark.parametrize("axis", [None, 0])
def test_a_shrunk_grid_serves_at_least_as_well(axis):
    variant = mlp()
    model, plan = layers_of(variant)
    graph, layer = Graph(model), plan.layers[0]
    rows, w = Rows(graph, layer), graph.constant(plan.layers[0].weight)
    x = np.random.default_rng(0).standard_normal((1, 300, 32))
    metric, target = np.swapaxes(x, 1, 2) @ x / 300, rows.matrices(w.astype(np.float64))
    grid = weight_grid(w, None if axis is None else layer.axis, bits=3)
    finer = shrunk(grid, rows, metric, target)
    assert finer.scale.shape == grid.scale.shape and (finer.scale <= grid.scale).all()
    before, after = (error(metric, target, rows.matrices(each.round(w))) for each in (grid, finer))
    assert after < before


def folded(variant, bits, per_channel=True):
    """(the graph without batch normalisations, its plan, a grid for each weight)."""
    model = open_graph(variant.payload)
    fold_batch_norm(model)
    join_bias(model)
    plan, graph = make_plan(model), Graph(model)
    axis = (lambda layer: layer.axis) if per_channel else (lambda layer: None)
    grids = {each.weight: weight_grid(graph.constant(each.weight), axis(each), bits) for each in plan.layers}
    return model, plan, grids


def test_the_earlier_layers_errors_are_seen_by_the_later():
    """With all layers in 2 bits, learning on the quantized inputs ends nearer to the float model."""
    variant = small_cnn()
    samples = data_for(variant, 64).split("train")
    model, plan, grids = folded(variant, 2)
    feeds = probe(variant, 16)
    with get_runtime("onnxruntime").load(variant) as session:
        expected = session.run(feeds)["y"]
    off = {}
    for method in ("nearest", "gptq", "descent"):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        rounded = learn_weights(method, variant, copy, plan.layers, grids, samples, silent)
        for layer in plan.layers:
            weight, _, bias = rounded[layer.weight]
            set_constant(copy, layer.weight, weight.grid.dequantize(weight.integers))
            set_constant(copy, layer.bias, bias)
        quantized = variant.derive("q", Step("test"), model=copy.SerializeToString())
        with get_runtime("onnxruntime").load(quantized) as session:
            off[method] = float(np.square(session.run(feeds)["y"] - expected).mean())
    assert off["gptq"] < 0.6 * off["nearest"] and off["descent"] < 0.6 * off["nearest"]


def test_corrected_biases_undo_the_mean_error_of_every_layer():
    """Per tensor in 3 bits the means are far off; with the shift, each layer's mean output is the float one's."""
    variant = small_cnn()
    samples = data_for(variant, 64).split("train")
    model, plan, grids = folded(variant, 3, per_channel=False)
    learned = learn_weights("nearest", variant, model, plan.layers, grids, samples, silent)
    names = [layer.output for layer in plan.layers]

    def means(correct):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for layer in plan.layers:
            weight, _, bias = learned[layer.weight]
            set_constant(copy, layer.weight, weight.grid.dequantize(weight.integers))
            if correct:
                set_constant(copy, layer.bias, bias)
        parts = [dict(found) for found in activations(variant, copy, names, samples, silent)]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return {n: x.mean(axis=tuple(i for i in range(x.ndim) if i != 1)) for n, x in whole.items()}

    parts = [dict(found) for found in activations(variant, model, names, samples, silent)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    expected = {n: x.mean(axis=tuple(i for i in range(x.ndim) if i != 1)) for n, x in whole.items()}
    without, corrected = means(False), means(True)
    for name in names:
        np.testing.assert_allclose(corrected[name], expected[name], atol=1e-3)
    for name in names[1:]:  # the first layer's inputs have a mean of 0
        assert np.abs(without[name] - expected[name]).max() > 0.02, "the rounding must shift a mean"


def shared(second_bias):
    """One weight in two layers, the first with a bias of +3."""
    nodes = [
        node("Gemm", "x w b1", "a"),
        node("Relu", "a", "r1"),
        node("Gemm", f"r1 w {second_bias}".rstrip(), "b"),
        node("Relu", "b", "r2"),
        node("Gemm", "r2 v", "y"),
    ]
    constants = [weight("w", 32, 32), constant("b1", np.full(32, 3.0)), weight("v", 32, 10)]
    if second_bias == "b2":
        constants.append(constant("b2", np.full(32, -3.0)))
    return build(nodes, constants, ("batch", 32))


@pytest.mark.parametrize("second_bias", ["b2", "b1", ""])
def test_layers_that_share_a_weight_or_a_bias_keep_what_is_theirs(second_bias):
    variant = shared(second_bias)
    feeds, answers = probe(variant, 32), []
    techniques = (QuantizeInt8(correct_bias=True), QuantizeWeights(bits=8, rounding="gptq"))
    for each in (variant, *(technique(variant, data_for(variant)) for technique in techniques)):
        with get_runtime("onnxruntime").load(each) as session:
            answers.append(session.run(feeds)["y"])
    for answer in answers[1:]:
        assert np.abs(answer - answers[0]).max() < 0.1 * np.abs(answers[0]).max()


def test_no_sample_is_an_error_of_ours():
    variant = mlp()
    dataset = data_for(variant)
    empty = dataclasses.replace(
        dataset, splits={**dataset.splits, "calibration": dataset.split("train").take(slice(0, 0))}
    )
    with pytest.raises(DataError, match="the split is empty"):
        QuantizeWeights(rounding="gptq")(variant, empty)
