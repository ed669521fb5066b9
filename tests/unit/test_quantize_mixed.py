"""Mixed precision: noises are measured alone, the walk misses nothing on the hull, and what is chosen was measured."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from labkit.data import Dataset, Split
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.progress import silent
from labkit.quantize import quantization_report
from labkit.quantize.calibration.calibrate import pick
from labkit.quantize.gate import quality_unit_pp
from labkit.quantize.mixed import QuantizeMixed, pareto, propose
from labkit.quantize.sensitivity import FLOAT_BITS, Candidates, Choice, sensitivity
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import build, constant, data_for, mlp, node, small_cnn, weight

QUICK = {
    "points": 4,
    "calibration_samples": 32,
    "check_samples": 128,
    "rounding": "gptq",
    "max_drop_pp": 30.0,
}


@pytest.fixture(scope="module")
def stocked():
    """(a user's model, its data, its candidates)."""
    variant = small_cnn()
    dataset = data_for(variant)
    return variant, dataset, QuantizeMixed(**QUICK).stock(variant, dataset, silent)


def run(variant, model):
    made = variant.derive("made", QuantizeMixed().step(variant), model=model.SerializeToString())
    with get_runtime("onnxruntime").load(made) as session:
        return session.run(probe(variant, 8))["y"]


def test_a_layer_alone_makes_the_noise_that_is_told(stocked):
    variant, dataset, candidates = stocked
    samples = pick(variant, dataset.split("calibration"), 64)
    choices = sensitivity(variant, candidates, samples, (8, 4), silent)
    assert [each.weight for each in choices[::3]] == candidates.names
    assert [each.bits for each in choices[:3]] == [FLOAT_BITS, 8, 4]
    for full, eight, four in (choices[i : i + 3] for i in range(0, len(choices), 3)):
        assert full.noise == 0 and full.snr_db == np.inf
        assert 0 < eight.noise < four.noise, "fewer bits must make more noise"
        assert full.weight_bytes > eight.weight_bytes > four.weight_bytes
    name = choices[2].weight
    alone = {each: 4 if each == name else FLOAT_BITS for each in candidates.names}
    feeds = variant.feeds(samples.inputs)
    found = []
    for bits in (alone, dict.fromkeys(candidates.names, FLOAT_BITS)):
        made = variant.derive(
            "m", QuantizeMixed().step(variant), model=candidates.assemble(bits)[0].SerializeToString()
        )
        with get_runtime("onnxruntime").load(made) as session:
            found.append(session.run(feeds)["y"].astype(np.float64))
    noise = np.square(found[0] - found[1]).sum() / np.square(found[1] - found[1].mean(axis=0)).sum()
    np.testing.assert_allclose(choices[2].noise, noise, rtol=1e-3)


def test_all_float_is_the_float_model_and_all_eight_bits_is_integer(stocked):
    variant, _, candidates = stocked
    with get_runtime("onnxruntime").load(variant) as session:
        expected = session.run(probe(variant, 8))["y"]
    model, plan, _ = candidates.assemble(dict.fromkeys(candidates.names, FLOAT_BITS))
    assert not any("Quantize" in each.op_type for each in model.graph.node) and not plan.layers
    np.testing.assert_allclose(run(variant, model), expected, atol=1e-4)
    eight, plan, _ = candidates.assemble(dict.fromkeys(candidates.names, 8))
    assert len(plan.layers) == 3 and any(each.op_type == "QuantizeLinear" for each in eight.graph.node)
    assert 0 < np.abs(run(variant, eight) - expected).max() < 0.2 * np.abs(expected).max()


def test_layers_of_four_bits_are_stored_in_half_the_bytes_and_others_in_float(stocked):
    variant, _, candidates = stocked
    first, second, third = candidates.names
    model, plan, weights = candidates.assemble({first: 8, second: 4, third: FLOAT_BITS})
    assert {each: weights[each].grid.bits for each in (first, second)} == {first: 8, second: 4}
    stored = {each.name: each.data_type for each in model.graph.initializer}
    assert stored[f"{first}/quantized"] == onnx.TensorProto.INT8
    assert stored[f"{second}/int4"] == onnx.TensorProto.INT4
    assert third in stored and any("asked to stay" in why for why in plan.left.values())
    assert np.isfinite(run(variant, model)).all()


def test_the_biases_that_were_learned_with_four_bits_go_with_them(stocked):
    _, _, candidates = stocked
    learned = candidates.biases[4]
    assert set(learned) == {layer.bias for layer in candidates.plan.layers}
    weights_only = Candidates(
        candidates.model, candidates.plan, candidates.grids, candidates.weights, {4: {}, 8: {}}, 1
    )
    four = dict.fromkeys(candidates.names, 4)
    found, without = (
        {t.name: numpy_helper.to_array(t) for t in each.assemble(four)[0].graph.initializer}
        for each in (candidates, weights_only)
    )
    for layer in candidates.plan.layers:
        name = f"{layer.output}/bias"
        unit = found[f"{name}/scale"]
        np.testing.assert_allclose(found[f"{name}/quantized"] * unit, learned[layer.bias], atol=unit.max())
        assert not np.array_equal(found[f"{name}/quantized"], without[f"{name}/quantized"])


def choices_of(random, layers):
    """Random bytes and noises, fewer bits being smaller and noisier."""
    found = []
    for layer in range(layers):
        size, level = random.integers(10, 1000), 10 ** random.uniform(-4, 0)
        noise = level * 10 ** random.uniform(-3, -1)
        found += [
            Choice(f"w{layer}", b, int(size * b // 8), n) for b, n in ((32, 0.0), (8, noise), (4, level))
        ]
    return found


@given(st.integers(0, 10_000))
def test_every_proposal_is_the_best_of_its_size(seed):
    """All 3^4 assignments tried: none has fewer or as many bytes and less noise."""
    choices = choices_of(np.random.default_rng(seed), 4)
    table = {(each.weight, each.bits): each for each in choices}

    def cost(assignment):
        chosen = [table[item] for item in assignment.items()]
        return sum(each.weight_bytes for each in chosen), sum(each.noise for each in chosen)

    names = [f"w{i}" for i in range(4)]
    every = [cost(dict(zip(names, bits, strict=True))) for bits in itertools.product((32, 8, 4), repeat=4)]
    proposals = propose(choices, 100)
    assert dict.fromkeys(names, 32) in proposals
    assert all(dict.fromkeys(names, bits) in proposals for bits in (8, 4))
    on_walk = [each for each in proposals if each != dict.fromkeys(names, 8)]
    for size, noise in map(cost, on_walk):
        better = [each for each in every if each[0] <= size and each[1] < noise - 1e-12]
        assert not better, "an assignment on the walk is beaten"


def test_a_bad_walk_would_be_noticed():
    """The negative control: choosing by noise alone, in the order of the layers, is beaten."""
    random = np.random.default_rng(1)
    choices = choices_of(random, 4)
    naive = {"w0": 4, "w1": 4, "w2": 32, "w3": 32}
    table = {(each.weight, each.bits): each for each in choices}
    size, noise = (sum(getattr(table[i], f) for i in naive.items()) for f in ("weight_bytes", "noise"))
    every = (
        [table[item] for item in zip(["w0", "w1", "w2", "w3"], bits, strict=True)]
        for bits in itertools.product((32, 8, 4), repeat=4)
    )
    assert any(sum(c.weight_bytes for c in e) <= size and sum(c.noise for c in e) < noise for e in every)


def test_the_search_returns_measured_points_and_the_limits_choose():
    variant = small_cnn()
    dataset = data_for(variant)
    technique = QuantizeMixed(**QUICK)
    points = technique.search(variant, dataset, silent)
    assert [each.size_bytes for each in points] == sorted(each.size_bytes for each in points)
    for point in points:
        assert point.size_bytes == len(point.variant.payload)
        assert point.drop_ci95[0] <= point.drop_pp <= point.drop_ci95[1]
    uniform = {
        tuple(set(each.assignment.values())) for each in points if len(set(each.assignment.values())) == 1
    }
    assert {(8,), (4,), (32,)} <= uniform
    best = pareto(points)
    assert all(any(p.size_bytes <= u.size_bytes and p.drop_pp <= u.drop_pp for p in best) for u in points), (
        "the front must not lie above any point"
    )
    small = technique(variant, dataset)
    fits = [each for each in points if each.drop_pp <= technique.max_drop_pp]
    assert small.size_bytes == fits[0].size_bytes
    report = quantization_report(small)
    assert report.calibration_samples == 32 and report.drop_pp == pytest.approx(fits[0].drop_pp, abs=1e-3)
    tight = QuantizeMixed(**{**QUICK, "max_size_ratio": 0.5, "max_drop_pp": 100.0})(variant, dataset)
    assert tight.size_bytes <= 0.5 * variant.size_bytes


def test_limits_that_nothing_meets_name_the_nearest_miss():
    variant = small_cnn()
    with pytest.raises(
        TechniqueError, match="none of .* keeps within .*max_size_ratio=0.05.*nearest .* loosen"
    ):
        QuantizeMixed(**{**QUICK, "max_size_ratio": 0.05})(variant, data_for(variant))


def test_a_limit_of_latency_is_measured():
    variant = mlp()
    points = QuantizeMixed(**QUICK, max_latency_ratio=9.0).search(variant, data_for(variant), silent)
    assert all(0 < each.latency_ratio < 9 for each in points)
    assert all(
        each.latency_ratio is None
        for each in QuantizeMixed(**QUICK).search(variant, data_for(variant), silent)
    )


def test_it_can_be_stopped():
    variant = mlp()

    def stop(fraction, message):
        if message.startswith("sensitivity"):
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        QuantizeMixed(**QUICK)(variant, data_for(variant), stop)


def test_shared_weights_are_one_choice():
    nodes = [
        node("MatMul", "x w", "a"),
        node("Relu", "a", "r"),
        node("MatMul", "r w", "b"),
        node("Gemm", "b v", "y"),
    ]
    variant = build(nodes, [weight("w", 32, 32), weight("v", 32, 10)], ("batch", 32))
    candidates = QuantizeMixed(**QUICK).stock(variant, data_for(variant), silent)
    assert candidates.names == ["w", "v"]
    model, plan, _ = candidates.assemble({"w": 4, "v": 8})
    assert len(plan.layers) == 3 and np.isfinite(run(variant, model)).all()


def test_a_layer_too_large_to_learn_says_what_to_do():
    variant = build(
        [node("MatMul", "x w", "h"), node("ReduceMean", "h axes", "r", keepdims=0), node("Gemm", "r v", "y")],
        [weight("w", 5000, 10), weight("v", 10, 10), constant("axes", [1], np.int64)],
        ("batch", 2, 5000),
    )
    with pytest.raises(TechniqueError, match="'w' .* has 5000 inputs.*rounding='nearest'"):
        QuantizeMixed(**QUICK)(variant, data_for(variant, 40))


@pytest.mark.parametrize(
    "bad", [{"points": 1}, {"max_size_ratio": 0.0}, {"rounding": "up"}, {"runtime": "tf"}]
)
def test_knobs_refuse_what_makes_no_sense(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        QuantizeMixed(**bad)


def test_a_point_of_quality_is_a_share_of_each_target_s_own_variance():
    """Two targets of variance 1 that lie a thousand apart: their distance must not hide an error."""
    target = np.random.default_rng(0).standard_normal((500, 2)) + np.array([0.0, 1000.0])
    samples = Split({"x": np.zeros((500, 1), np.float32)}, target.astype(np.float32))
    dataset = Dataset("plane", "regression", {"train": samples})
    assert 80 < quality_unit_pp(dataset, samples) < 125
