"""A pruned file is trained with batch norms, and comes back without."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from labkit.convert import ExportOnnx
from labkit.data import load_dataset
from labkit.measure.quality import evaluate
from labkit.prune import PruneChannels, PruneWeights
from labkit.prune.norms import moments, with_batch_norms, without_batch_norms
from labkit.runtimes import reference_runtime
from labkit.technique import probe
from labkit.zoo import load_model
from tests.graphs import build, data_for, node, small_cnn, weight


@pytest.fixture(scope="module")
def digits():
    """A file of twenty layers, whose export has folded all batch norms."""
    return ExportOnnx()(load_model("resnet20@digits")), load_dataset("digits")


def folded_cnn():
    variant = small_cnn()
    return dataclasses.replace(variant, model=without_batch_norms(variant.payload))


def operators(variant):
    return Counter(each.op_type for each in onnx.load_model_from_string(variant.payload).graph.node)


def outputs(variant, feeds):
    with reference_runtime(variant).load(variant) as session:
        (answer,) = session.run(feeds).values()
    return answer


def accuracy(variant, dataset):
    return float(evaluate(variant, dataset, "test").mean())


@pytest.mark.parametrize(
    "technique",
    [PruneChannels(0.5, fine_tune_epochs=2, threads=1), PruneWeights(0.8, fine_tune_epochs=2, threads=1)],
    ids=["channels", "weights"],
)
def test_a_deep_file_without_norms_is_mended_at_the_usual_learning_rate(technique, digits):
    whole, dataset = digits
    broken = dataclasses.replace(technique, fine_tune_epochs=0)(whole)
    mended = technique(whole, dataset)
    assert accuracy(broken, dataset) < 0.5 and accuracy(mended, dataset) > 0.9
    assert operators(mended) == operators(broken) and "BatchNormalization" not in operators(mended)


def test_the_norms_change_nothing_before_the_training_and_nothing_stays_of_them_afterwards():
    variant = folded_cnn()
    feeds = probe(variant, batch_size=4)
    known = moments(variant, data_for(variant), batch_size=16, seed=0)
    normed = dataclasses.replace(variant, model=with_batch_norms(variant.payload, known, {}))
    assert operators(normed)["BatchNormalization"] == len(known) == operators(variant)["Conv"]
    expected = outputs(variant, feeds)
    np.testing.assert_allclose(outputs(normed, feeds), expected, rtol=1e-4, atol=1e-5)
    again = dataclasses.replace(variant, model=without_batch_norms(normed.payload))
    assert operators(again) == operators(variant)
    np.testing.assert_allclose(outputs(again, feeds), expected, rtol=1e-4, atol=1e-5)


def test_a_channel_has_the_moments_that_it_had_in_the_whole_network():
    variant = folded_cnn()
    whole = moments(variant, data_for(variant), batch_size=16, seed=0)
    (name, first), *_ = whole.items()
    conv = next(
        each for each in onnx.load_model_from_string(variant.payload).graph.node if name in each.output
    )
    stay = np.array([1, 4, 7])
    normed = onnx.load_model_from_string(with_batch_norms(variant.payload, whole, {(conv.input[1], 0): stay}))
    norm = next(each for each in normed.graph.node if name in each.output)
    stored = {each.name: to_array(each) for each in normed.graph.initializer}
    _, shift, mean, variance = (stored[each] for each in norm.input[1:])
    np.testing.assert_allclose(variance, first.variance[stay], rtol=1e-6)
    np.testing.assert_allclose(shift, first.mean[stay], rtol=1e-6)
    np.testing.assert_array_equal(shift, mean)


def test_a_convolution_whose_bias_is_computed_or_left_empty_has_none_for_it_could_not_be_folded_again():
    variant = build(
        [
            node("Conv", "x w1", "a"),
            node("Relu", "a", "b"),
            node("Identity", "b2", "computed"),
            node("Conv", "b w2 computed", "c"),
            node("GlobalAveragePool", "c", "d"),
            node("Flatten", "d", "e"),
            node("Gemm", "e w3", "y", transB=1),
        ],
        [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("b2", 8), weight("w3", 10, 8)],
    )
    model = onnx.load_model_from_string(variant.payload)
    model.graph.node[0].input.append("")
    variant = dataclasses.replace(variant, model=model.SerializeToString())
    dataset = data_for(variant)
    assert not moments(variant, dataset, batch_size=16, seed=0)
    mended = PruneWeights(0.5, fine_tune_epochs=1, threads=1)(variant, dataset)
    assert operators(mended) == operators(variant)


def test_a_file_with_norms_of_its_own_keeps_them():
    variant = small_cnn()
    dataset = data_for(variant)
    assert moments(variant, dataset, batch_size=16, seed=0) == {}
    mended = PruneChannels(0.5, fine_tune_epochs=1, threads=1)(variant, dataset)
    assert operators(mended) == operators(variant)
