"""Exactly the smallest weights become zero, they stay zero, and nothing gets smaller or faster by it."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labkit.errors import ConfigError, TechniqueError
from labkit.progress import silent
from labkit.prune import PruneMagnitude
from labkit.prune.masks import lowest, prunable_weights
from labkit.prune.scores import magnitudes
from labkit.train import Train, fit

QUICK = PruneMagnitude(0.9, fine_tune_epochs=1, batch_size=32, max_samples=128, threads=1)


def smallest(weights, sparsity):
    return lowest(magnitudes(weights), sparsity)


def zeros(variant):
    return sum(int((weight == 0).sum()) for weight in prunable_weights(variant.model))


def weights_in(variant):
    return sum(weight.numel() for weight in prunable_weights(variant.model))


# --- the formula ---


def test_weights_below_the_threshold_become_zero_and_the_others_stay():
    weight = torch.tensor([[-0.9, 0.1, 0.5], [-0.2, 0.3, -0.05]])
    (mask,) = smallest([weight], 0.5)
    assert torch.equal(weight.masked_fill(mask, 0.0), torch.tensor([[-0.9, 0.0, 0.5], [0.0, 0.3, 0.0]]))


def test_the_often_printed_formula_is_another_one():
    weight, threshold = torch.tensor([-0.9, 0.1, 0.5]), 0.3
    printed = (weight - threshold).clamp(min=0)  # max(0, w − θ): loses −0.9, and shrinks 0.5
    (mask,) = smallest([weight], 1 / 3)
    assert torch.equal(weight.masked_fill(mask, 0.0), torch.where(weight.abs() >= threshold, weight, 0.0))
    assert not torch.equal(weight.masked_fill(mask, 0.0), printed)


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), min_size=1, max_size=4),
    st.floats(0.001, 0.999),
)
def test_the_number_is_exact_and_nothing_that_stays_is_smaller(values, sparsity):
    masks = smallest([torch.tensor(each) for each in values], sparsity)
    magnitudes, mask = np.abs(np.concatenate(values)), torch.cat(masks).numpy()
    assert mask.sum() == min(round(sparsity * len(mask)), len(mask) - 1)
    assert magnitudes[mask].max(initial=0.0) <= magnitudes[~mask].min()
    assert [mask.shape for mask in masks] == [(len(each),) for each in values]


# --- the technique ---


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
def test_global_sparsity_is_exact_and_one_threshold_divides_the_network(sparsity, lenet):
    pruned = PruneMagnitude(sparsity)(lenet)
    assert zeros(pruned) == round(sparsity * weights_in(lenet))
    before = torch.cat([weight.flatten() for weight in prunable_weights(lenet.model)]).abs()
    after = torch.cat([weight.flatten() for weight in prunable_weights(pruned.model)])
    assert before[after == 0].max() <= before[after != 0].min()
    assert torch.equal(after[after != 0].abs(), before[after != 0])


def test_layer_sparsity_is_exact_in_every_layer(lenet):
    pruned = PruneMagnitude(0.7, scope="layer")(lenet)
    for weight in prunable_weights(pruned.model):
        assert int((weight == 0).sum()) == round(0.7 * weight.numel())


def test_global_and_layer_choose_different_weights(lenet):
    assert PruneMagnitude(0.7, "global")(lenet).digest != PruneMagnitude(0.7, "layer")(lenet).digest


def test_biases_stay(lenet):
    pruned = PruneMagnitude(0.99)(lenet)
    for name, before in lenet.model.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(pruned.model.get_parameter(name), before), name


def test_the_plain_file_is_no_smaller(lenet):
    assert PruneMagnitude(0.9)(lenet).size_bytes == lenet.size_bytes


def test_zeros_are_plain_zeros(lenet):
    """−0.0 equals 0.0 but has other bits, and would be a second symbol to whoever encodes the file."""
    for weight in prunable_weights(PruneMagnitude(0.9)(lenet).model):
        assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.parametrize("name", ["two_inputs", "regression"])
def test_it_takes_models_of_any_shape(name, cases):
    pruned = PruneMagnitude(0.5)(*cases[name])
    assert zeros(pruned) == round(0.5 * weights_in(cases[name][0]))


def test_a_shared_weight_counts_once():
    layer = nn.Linear(4, 4)
    assert [id(weight) for weight in prunable_weights(nn.Sequential(layer, layer))] == [id(layer.weight)]


# --- fine-tuning ---


def test_the_zeros_are_where_they_were_after_fine_tuning(lenet, digits):
    plain = dataclasses.replace(QUICK, fine_tune_epochs=0)(lenet)
    tuned = QUICK(lenet, digits)
    for before, after in zip(prunable_weights(plain.model), prunable_weights(tuned.model), strict=True):
        assert torch.equal(before == 0, after == 0)
        assert not torch.equal(before, after)


def test_without_the_mask_the_zeros_come_back_to_life(lenet, digits):
    plain = dataclasses.replace(QUICK, fine_tune_epochs=0)(lenet)
    recipe = Train(epochs=1, batch_size=32, max_samples=128, learning_rate=0.02, threads=1)
    loose = dataclasses.replace(plain, model=fit(recipe, plain, digits, silent))
    assert zeros(loose) < 0.5 * zeros(plain)


def test_fine_tuning_needs_data(lenet):
    assert not PruneMagnitude().needs_dataset
    with pytest.raises(TechniqueError, match="prune_magnitude needs a dataset"):
        QUICK(lenet)


# --- errors ---


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_sparse_enough_already_is_refused(epochs, lenet, digits):
    sparse = PruneMagnitude(0.9)(lenet)
    with pytest.raises(TechniqueError, match=r"sparsity=0\.5 changes nothing"):
        PruneMagnitude(0.5, fine_tune_epochs=epochs)(sparse, digits)
    assert zeros(PruneMagnitude(0.95)(sparse)) == round(0.95 * weights_in(lenet))


def test_a_network_without_such_layers_is_refused(cases):
    variant = dataclasses.replace(cases["two_inputs"][0], model=nn.Embedding(3, 2))
    with pytest.raises(TechniqueError, match="no convolution or linear layer"):
        PruneMagnitude()(variant)


def test_the_template_notices_a_pruning_that_writes_into_its_input(lenet, monkeypatch):
    fresh = dataclasses.replace(lenet, model=copy.deepcopy(lenet.model))
    monkeypatch.setattr("labkit.prune.weights.copy.deepcopy", lambda model: model)
    with pytest.raises(TechniqueError, match="changed the variant that it was given"):
        PruneMagnitude()(fresh)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sparsity": 1.0}, r"sparsity=1\.0 is out of range; allowed: 0\.0 < sparsity < 1\.0"),
        ({"sparsity": 0.0}, r"sparsity=0\.0"),
        ({"sparsity": -0.1}, r"sparsity=-0\.1"),
        ({"sparsity": math.nan}, "sparsity=nan"),
        ({"sparsity": "half"}, "sparsity='half' must be of type float, not str: write a number, such as 0.5"),
        ({"sparsity": "90%"}, "sparsity='90%' must be of type float, not str: write 0.9$"),
        ({"sparsity": "12.5 %"}, "not str: write 0.125$"),
        ({"sparsity": ".5"}, "not str: write 0.5$"),
        ({"sparsity": "nan"}, "not str: write a number, such as"),
        ({"fine_tune_epochs": "ten"}, "of type int, not str: write a whole number, such as 0$"),
        ({"fine_tune_epochs": "50%"}, "not str: write a whole number, such as 0$"),
        ({"fine_tune_epochs": "3 "}, "not str: write 3$"),
        ({"scope": "globl"}, "scope='globl' is unknown; did you mean 'global'"),
        ({"fine_tune_epochs": -1}, "fine_tune_epochs=-1"),
    ],
)
def test_a_bad_knob_names_the_field_the_value_and_the_range(change, says):
    with pytest.raises(ConfigError, match=says):
        PruneMagnitude(**change)
