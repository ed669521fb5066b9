"""Weights share values, zeros stay zero, and a shared value learns by the sum of its weights' gradients."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from labkit.encode import ClusterWeights
from labkit.encode.cluster import _LookUp
from labkit.encode.codebook import FLOAT16, INT8, split
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.prune import PruneMagnitude

TUNED = ClusterWeights(2, 2, fine_tune_epochs=1, max_samples=256, threads=1)


@pytest.fixture(scope="module")
def sparse(lenet):
    return PruneMagnitude(0.9)(lenet)


def weights(variant):
    return {name: p.detach().numpy() for name, p in variant.model.named_parameters() if p.ndim > 1}


def values(array):
    return np.unique(array[array != 0])


@pytest.mark.parametrize("start", ["linear", "exact"])
def test_every_layer_has_as_many_values_as_its_kind_is_allowed(start, sparse):
    made = ClusterWeights(linear_levels=6, conv_levels=9, start=start)(sparse)
    for name, array in weights(made).items():
        assert 1 < len(values(array)) <= (9 if "conv" in name else 6), name


def test_a_stop_takes_effect_between_two_values_of_the_best_codebook(sparse):
    said = []

    def stop(fraction, message):
        said.append(fraction)
        if "best 9 values" in message and len(said) > 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        ClusterWeights(linear_levels=6, conv_levels=9, start="exact")(sparse, progress=stop)
    assert len(said) == 5 and said == sorted(said) and said[-1] > 0


def test_zeros_stay_plain_zeros_and_nothing_else_becomes_one(sparse):
    for tuned in (ClusterWeights()(sparse), dataclasses.replace(TUNED, fine_tune_epochs=0)(sparse)):
        for before, after in zip(weights(sparse).values(), weights(tuned).values(), strict=True):
            assert not np.signbit(after[before == 0]).any() and (after[before == 0] == 0).all()


def test_each_weight_takes_the_nearest_value(sparse):
    made = ClusterWeights(values="float32")(sparse)
    for before, after in zip(weights(sparse).values(), weights(made).values(), strict=True):
        kept = before != 0
        distance = np.abs(before[kept][:, None] - values(after)[None])
        assert np.abs(before[kept] - after[kept]) == pytest.approx(distance.min(1), abs=1e-6)


@pytest.mark.parametrize(("kind", "form"), [("int8", INT8), ("float16", FLOAT16)])
def test_the_values_are_what_a_file_stores_in_few_bytes(kind, form, sparse):
    made = ClusterWeights(values=kind)(sparse)
    assert {split(array)[1].form for array in weights(made).values()} == {form}


def test_biases_stay_unless_they_are_asked_for(sparse):
    plain, shared = ClusterWeights()(sparse), ClusterWeights(bias_levels=4)(sparse)
    for name, before in sparse.model.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(plain.model.get_parameter(name), before)
            assert len(values(shared.model.get_parameter(name).detach().numpy())) <= 4


def test_a_value_s_gradient_is_the_sum_of_its_weights_gradients():
    random = torch.manual_seed(0)
    codebook = torch.randn(3, generator=random, requires_grad=True)
    entries = torch.randint(0, 4, (5, 7), generator=random)
    gradient = torch.randn(5, 7, generator=random)
    _LookUp.apply(codebook, entries).backward(gradient)
    assert codebook.grad.tolist() == pytest.approx(
        [gradient[entries == k].sum().item() for k in (1, 2, 3)], abs=1e-5
    )


def test_training_the_values_makes_up_for_few_of_them(sparse, digits):
    def loss(variant):
        batch = digits.split("train").take(slice(0, 256))
        with torch.no_grad():
            (inputs,) = (torch.from_numpy(x) for x in variant.feeds(batch.inputs).values())
            return nn.functional.cross_entropy(variant.model(inputs), torch.from_numpy(batch.target)).item()

    coarse = dataclasses.replace(TUNED, fine_tune_epochs=0)(sparse)
    tuned = TUNED(sparse, digits)
    assert loss(tuned) < 0.9 * loss(coarse)
    for before, after in zip(weights(coarse).values(), weights(tuned).values(), strict=True):
        assert ((before == 0) == (after == 0)).all() and len(values(after)) <= 2


def test_the_result_is_the_plain_architecture(sparse):
    made = ClusterWeights(bias_levels=2)(sparse)
    assert list(made.model.state_dict()) == list(sparse.model.state_dict())
    assert [type(m) for m in made.model.modules()] == [type(m) for m in sparse.model.modules()]


def test_a_layer_without_a_weight_left_stays_empty(lenet):
    model = copy.deepcopy(lenet.model)
    nn.init.zeros_(model.conv1.weight)
    made = ClusterWeights()(dataclasses.replace(lenet, model=model))
    assert not made.model.conv1.weight.any()


@pytest.mark.parametrize("start", ["linear", "exact"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, start, lenet):
    model = copy.deepcopy(lenet.model)
    nn.init.constant_(model.fc1.weight, value)
    with pytest.raises(TechniqueError, match="a weight of 'lenet5@digits' holds NaN or infinity"):
        ClusterWeights(start=start)(dataclasses.replace(lenet, model=model))


def test_what_cannot_be_clustered_is_refused(cases, sparse):
    with pytest.raises(TechniqueError, match="raise one above 0"):
        ClusterWeights(linear_levels=0, conv_levels=0)(sparse)
    with pytest.raises(ConfigError, match="linear_levels=256 is out of range"):
        ClusterWeights(linear_levels=256)
    with pytest.raises(TechniqueError, match="needs a dataset"):
        TUNED(sparse)


@pytest.mark.parametrize("name", ["two_inputs", "regression"])
def test_it_takes_models_of_any_shape(name, cases):
    variant, dataset = cases[name]
    made = ClusterWeights(linear_levels=4)(variant, dataset)
    assert all(len(values(array)) <= 4 for key, array in weights(made).items() if "table" not in key)


class Tied(nn.Module):
    """Two layers that are one: what is trained through either is the other's too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(1024, 16), nn.Linear(1024, 16), nn.Linear(16, 10)
        self.second.weight = self.first.weight

    def forward(self, image):
        rows = image.flatten(1)
        return self.last(torch.relu(self.first(rows)) + torch.relu(self.second(rows.flip(1))))


def test_layers_that_share_a_weight_share_its_codebook(lenet, digits, monkeypatch):
    trained = []
    whole = ClusterWeights.fine_tune

    def kept(self, *arguments):
        module = whole(self, *arguments)
        trained.extend(layer.weight.detach().clone() for layer in (module.first, module.second))
        return module

    monkeypatch.setattr(ClusterWeights, "fine_tune", kept)
    variant = dataclasses.replace(lenet, model=Tied().eval(), name="tied")
    made = dataclasses.replace(TUNED, values="float32", learning_rate=0.01)(variant, digits)
    assert made.model.first.weight is made.model.second.weight
    assert all(torch.equal(made.model.first.weight, weight) for weight in trained) and len(trained) == 2


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_network_keeps_its_precision(dtype, cases):
    variant, _ = cases["regression"]
    spec = [dataclasses.replace(each, dtype=dtype) for each in (*variant.inputs, *variant.outputs)]
    model = copy.deepcopy(variant.model).to(getattr(torch, dtype))
    made = ClusterWeights(2)(dataclasses.replace(variant, model=model, inputs=spec[:1], outputs=spec[1:]))
    assert {str(p.dtype) for p in made.model.parameters()} == {f"torch.{dtype}"}
    assert all(len(values(array)) <= 2 for array in weights(made).values())


def test_a_weight_that_is_computed_anew_each_time_is_refused(cases):
    variant, _ = cases["regression"]
    model = copy.deepcopy(variant.model)
    nn.utils.parametrizations.weight_norm(model[0])
    for technique in (ClusterWeights(), PruneMagnitude()):
        with pytest.raises(TechniqueError, match=r"weight of '0' is computed anew .*remove_parametrizations"):
            technique(dataclasses.replace(variant, model=model))
